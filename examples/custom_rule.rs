//! Lion, written outside the crate: a configuration, a table of options, the mathematics of one
//! element. Groups, checks, threads, low-bit state and checkpoints come with it.
//!
//! ```text
//! cargo run --example custom_rule
//! ```

use eigenstep::numeric::Real;
use eigenstep::optim::{Slot, WeightDecay};
use eigenstep::{hyperparameters, prelude::*};
use ndarray::Array2;

#[derive(Clone, Debug)]
struct MyLion {
    lr: f64,
    betas: (f64, f64),
    weight_decay: f64,
}

impl Default for MyLion {
    fn default() -> Self {
        Self { lr: 1e-4, betas: (0.9, 0.99), weight_decay: 0.0 }
    }
}

hyperparameters!(MyLion, "MyLion", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "weight_decay": NonNegative = weight_decay;
});

impl Rule for MyLion {
    /// `1 − β₁` and `1 − β₂`.
    type Coefficients<R: Real> = [R; 2];
    type State<R: Real> = [R; 1];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("exp_avg")];

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> [R; 2] {
        [R::of(1.0 - self.betas.0), R::of(1.0 - self.betas.1)]
    }

    #[inline(always)]
    fn direction<R: Real>(&[a, b]: &[R; 2], _p: R, g: R, [m]: [R; 1]) -> (R, [R; 1]) {
        let c = m + a * (g - m);
        let sign = if c == R::zero() { c } else { c.signum() };
        (sign, [m + b * (g - m)])
    }

    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    fn decay(&self) -> WeightDecay {
        WeightDecay::Decoupled(self.weight_decay)
    }
}

/// Weights after 100 steps on a valley whose sides differ in steepness, and the bytes of state.
fn train(mut opt: impl Optimizer<f32>) -> Result<(Array2<f32>, usize)> {
    let start = |(i, j)| ((i * 7 + j * 3) % 11) as f32 - 5.0;
    let mut w = Array2::from_shape_fn((64, 128), start);
    for _ in 0..100 {
        let mut grad = w.clone();
        grad.indexed_iter_mut().for_each(|((i, _), g)| *g *= 0.1 + i as f32);
        opt.step(&mut w, &grad)?;
    }
    Ok((w, opt.state_bytes().total()))
}

fn main() -> Result<()> {
    let mine = MyLion { lr: 0.05, weight_decay: 0.01, ..MyLion::default() };
    let theirs = Lion { lr: 0.05, weight_decay: 0.01, ..Lion::default() };

    let (weights, bytes) = train(mine.clone().build()?)?;
    let (expected, _) = train(theirs.build()?)?;
    let equal = weights.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
    println!("100 steps of MyLion and of the crate's Lion, bit for bit: {equal}");

    let (coded, fewer) = train(mine.build()?.with_state_precision(Precision::INT8_LINEAR)?)?;
    let size = |w: &Array2<f32>| w.mapv(f32::abs).mean().unwrap_or(f32::NAN);
    println!("mean |w| with full state  {:.4}   {bytes} bytes", size(&weights));
    println!("mean |w| with 8-bit state {:.4}   {fewer} bytes", size(&coded));

    // options are checked by the same table
    let Err(refused) = MyLion { betas: (0.9, 1.5), ..MyLion::default() }.build::<f32>() else {
        return Ok(());
    };
    println!("refused: {refused}");
    Ok(())
}
