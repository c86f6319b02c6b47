//! Messages of compressors.

use crate::harness::Target;
use crate::memory::bounded;
use crate::mutate;
use crate::random::Random;
use eigenstep::error_feedback::compressor::{
    Compressor, HalfPrecision, Identity, LowRank, Message, Natural, Qsgd, RandK, ScaledSign,
    Selection, TopK,
};
use eigenstep::numeric::Real;

pub struct Messages;

const NUMEL: usize = 60;

fn compressor<R: Real>(random: &mut Random) -> Box<dyn Compressor<R>> {
    let density = 0.2;
    match random.below(10) {
        0 => Box::new(Identity),
        1 => Box::new(TopK(Selection::TopK { density })),
        2 => Box::new(TopK(Selection::BlockTopK { density, block: 16 })),
        3 => Box::new(RandK { density, unbiased: true, seed: 3 }),
        4 => Box::new(ScaledSign),
        5 => Box::new(Qsgd { levels: 9, seed: 3 }),
        6 => Box::new(Natural { seed: 3 }),
        7 => Box::new(LowRank::new(6, 10, 2, 3).expect("a valid rank")),
        8 => Box::new(HalfPrecision::Bf16),
        _ => Box::new(HalfPrecision::F16),
    }
}

/// The bytes of a valid message.
pub fn valid<R: Real>(random: &mut Random) -> Vec<u8> {
    let large = if random.once_in(4) { 1e38 } else { 1.0 };
    let x: Vec<R> = (0..NUMEL)
        .map(|_| R::of(large * ((random.next() >> 11) as f64 / (1u64 << 53) as f64 - 0.5)))
        .collect();
    compressor::<R>(random).compress(1, &x).to_bytes()
}

fn check<R: Real>(random: &mut Random) -> bool {
    let mut bytes = valid::<R>(random);
    mutate::bytes(&mut bytes, random);
    let Ok(message) = bounded(bytes.len(), || Message::<R>::from_bytes(&bytes)) else {
        return false;
    };
    assert_eq!(message.to_bytes(), bytes);
    let mut out = vec![R::nan(); message.numel().min(100)];
    bounded(bytes.len(), || message.decompress_into(&mut out));
    assert!(out.iter().all(|x| x.is_finite()), "{message:?} is not finite");
    true
}

impl Target for Messages {
    fn execute(&mut self, random: &mut Random) -> bool {
        if random.once_in(2) { check::<f32>(random) } else { check::<f64>(random) }
    }
}
