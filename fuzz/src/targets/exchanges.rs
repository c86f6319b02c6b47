//! What other workers send.

use super::messages::valid;
use crate::harness::Target;
use crate::memory::bounded;
use crate::mutate;
use crate::random::Random;
use eigenstep::Result;
use eigenstep::distributed::{
    AllReduce, Comm, CompressedAllReduce, Feedback, GradExchange, PowerSgd, PowerSgdOrder,
};
use eigenstep::error_feedback::Selection;
use eigenstep::error_feedback::compressor::{Compressor, Qsgd, ScaledSign, TopK};
use eigenstep::state::{Record, StateDict};
use std::sync::Mutex;

pub struct Exchanges;

const ROWS: usize = 6;
const COLUMNS: usize = 10;

/// Two other workers, who send what this one does, or something else.
struct Hostile(Mutex<Random>);

impl std::fmt::Debug for Hostile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hostile")
    }
}

impl Comm for Hostile {
    fn rank(&self) -> usize {
        0
    }
    fn size(&self) -> usize {
        3
    }
    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut random = self.0.lock().expect("not poisoned");
        let mut all = vec![own.to_vec(); 3];
        for other in all.iter_mut().skip(1) {
            match random.below(6) {
                0 | 1 => mutate::bytes(other, &mut random),
                2 => *other = valid::<f32>(&mut random),
                _ => {}
            }
        }
        match random.below(40) {
            0 => all.truncate(1),
            1 => all.push(Vec::new()),
            _ => {}
        }
        Ok(all)
    }
}

fn exchange(random: &mut Random) -> Box<dyn GradExchange<f32>> {
    let compressor: Box<dyn Compressor<f32>> = match random.below(3) {
        0 => Box::new(TopK(Selection::Count { k: 7 })),
        1 => Box::new(ScaledSign),
        _ => Box::new(Qsgd { levels: 5, seed: 1 }),
    };
    let (momentum, full_start, eta) = (0.5, random.once_in(2), Some(0.5));
    match random.below(6) {
        0 => Box::new(AllReduce::default()),
        1 => Box::new(AllReduce::bf16()),
        2 => {
            let mut exchange = PowerSgd::new(ROWS, COLUMNS, 2, 1).expect("a valid rank");
            if random.once_in(2) {
                exchange.order = PowerSgdOrder::Alternating;
            }
            Box::new(exchange)
        }
        kind => {
            let feedback = match kind {
                3 => Feedback::Ec,
                4 => Feedback::Ef21 { momentum, full_start },
                _ => Feedback::EControl { eta, full_start },
            };
            Box::new(CompressedAllReduce::new(feedback, compressor).expect("valid"))
        }
    }
}

fn saved(exchange: &dyn GradExchange<f32>) -> StateDict {
    let mut dict = StateDict::new("exchange");
    exchange.save(&mut Record::new("exchange", &mut dict));
    // the state inside of a compressor may move on
    dict.tensors.retain(|key, _| !key.contains("compressor"));
    dict
}

impl Target for Exchanges {
    fn execute(&mut self, random: &mut Random) -> bool {
        let mut exchange = exchange(random);
        let comm = Hostile(Mutex::new(Random::new(random.next(), 0)));
        let mut accepted = false;
        for step in 0..2 {
            let mut gradient: Vec<f32> =
                (0..ROWS * COLUMNS).map(|i| ((i + step) as f32 * 1.7).sin()).collect();
            let (before, state) = (gradient.clone(), saved(&*exchange));
            let size = 3 * 8 * gradient.len();
            match bounded(size, || exchange.exchange(&comm, &mut gradient)) {
                Ok(()) => {
                    assert!(gradient.iter().all(|x| x.is_finite()), "{exchange:?}");
                    accepted = true;
                }
                Err(error) => {
                    assert!(gradient == before, "{exchange:?}: {error}");
                    assert!(saved(&*exchange) == state, "{exchange:?}: {error}");
                }
            }
        }
        accepted
    }
}
