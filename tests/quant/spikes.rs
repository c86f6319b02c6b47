//! What one large gradient does to the other elements of its block of codes: the numbers of the section
//! on spikes in `docs/precision.md`, printed by
//! `cargo test --test quant spikes:: -- --nocapture`.

use eigenstep::prelude::*;
use ndarray::Array1;

/// One tensor, whose first block has the spike; blocks have at most 256 elements.
const LEN: usize = 4096;
const BLOCK: usize = 256;
const PLACE: usize = 3;
/// Steps before the spike.
const BEFORE: u64 = 200;

/// What is done to gradients before the step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Clip {
    Nothing,
    /// Elements to 10 times the usual.
    Values,
    /// The norm of all to 1.5 times the usual.
    Norm,
    /// The norm of every block to 1.5 times the usual.
    BlockNorms,
}

/// Half signal, which is the same at all steps, half noise; of root mean square 1.
fn gradient(step: u64) -> Array1<f32> {
    let noise = |i: u64| {
        let mut z = (step << 32 | i).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        if (z >> 40) & 1 == 0 { 1.0f32 } else { -1.0 }
    };
    let signal = |i: u64| if i.is_multiple_of(2) { 0.7 } else { -0.7 };
    (0..LEN as u64).map(|i| signal(i) + 0.7 * noise(i)).collect()
}

fn clipped(mut g: Array1<f32>, clip: Clip) -> Array1<f32> {
    let mut limit = |from: usize, to: usize| {
        let part = &mut g.as_slice_mut().unwrap()[from..to];
        let norm = part.iter().map(|x| x * x).sum::<f32>().sqrt();
        let factor = (1.5 * ((to - from) as f32).sqrt() / norm).min(1.0);
        part.iter_mut().for_each(|x| *x *= factor);
    };
    match clip {
        Clip::Nothing => {}
        Clip::Norm => limit(0, LEN),
        Clip::BlockNorms => (0..LEN).step_by(BLOCK).for_each(|at| limit(at, at + BLOCK)),
        Clip::Values => g.mapv_inplace(|x| x.clamp(-10.0, 10.0)),
    }
    g
}

/// How far the neighbours of the spike get in 20 and in 200 steps after it, along the signal.
fn way(precision: Precision, spike: f32, clip: Clip) -> [f64; 2] {
    let config = AdamW { lr: 1e-3, weight_decay: 0.0, ..AdamW::default() };
    let mut opt = config.build().unwrap().with_state_precision(precision).unwrap();
    let mut w = Array1::<f32>::zeros(LEN);
    let mut points = Vec::new();
    for step in 0..=BEFORE + 200 {
        if [BEFORE, BEFORE + 20, BEFORE + 200].contains(&step) {
            points.push(w.clone());
        }
        let mut g = gradient(step);
        if step == BEFORE && spike > 1.0 {
            g[PLACE] = spike;
        }
        opt.step(&mut w, &clipped(g, clip)).unwrap();
    }
    let along = |to: &Array1<f32>, i: usize| {
        f64::from(to[i] - points[0][i]) * if i.is_multiple_of(2) { -1.0 } else { 1.0 }
    };
    let neighbours = (0..128).filter(|&i| i != PLACE);
    [1, 2].map(|end| neighbours.clone().map(|i| along(&points[end], i)).sum())
}

#[test]
fn spikes_slow_their_block_down_until_they_are_forgotten() {
    let names = [
        ("Full", Precision::Full),
        ("INT8_LINEAR", Precision::INT8_LINEAR),
        ("INT8_DYNAMIC", Precision::INT8_DYNAMIC),
        ("INT4", Precision::INT4),
    ];
    for (name, precision) in names {
        // no clip does anything without a spike
        let usual = way(precision, 1.0, Clip::Nothing);
        for spike in [100.0, 1e4] {
            for clip in [Clip::Nothing, Clip::Values, Clip::Norm, Clip::BlockNorms] {
                let [soon, late] = way(precision, spike, clip);
                let [soon, late] = [soon / usual[0], late / usual[1]];
                println!("{name:12} {spike:>6}x {clip:?}: {soon:.2} {late:.2}");
                let lost = soon < 0.5;
                let expected = match (name, clip) {
                    ("INT4", Clip::Nothing | Clip::Norm) => true,
                    ("INT8_LINEAR", Clip::Nothing) => spike > 1e3,
                    _ => false,
                };
                assert_eq!(lost, expected, "{name} {spike} {clip:?}: {soon}");
                if clip == Clip::Values {
                    assert!((late - 1.0).abs() < 0.15, "{name} {spike}: {late}");
                }
            }
        }
    }
}

/// Distance from the minimum of a quadratic, in steps, that Lion circles at.
fn circling(precision: Precision) -> f64 {
    let lr = 1e-3;
    let config = Lion { lr, ..Lion::default() };
    let mut opt = config.build().unwrap().with_state_precision(precision).unwrap();
    let target = Array1::from_shape_fn(LEN, |i| (i as f32 * 0.37).sin());
    let curvature = Array1::from_shape_fn(LEN, |i| 0.1f32 + (i % 7) as f32);
    let mut w = Array1::<f32>::zeros(LEN);
    for _ in 0..3000 {
        let g = (&w - &target) * &curvature;
        opt.step(&mut w, &g).unwrap();
    }
    let squares = (&w - &target).mapv(|x| f64::from(x).powi(2));
    squares.mean().unwrap().sqrt() / lr
}

#[test]
fn lion_in_four_bits_ends_further_from_a_minimum() {
    let precisions =
        [Precision::Full, Precision::INT8_LINEAR, Precision::INT8_DYNAMIC, Precision::INT4];
    let [full, linear, dynamic, four] = precisions.map(circling);
    println!("steps from the minimum: {full:.1}, {linear:.1}, {dynamic:.1}, {four:.1}");
    assert!(full < four && dynamic < four);
}
