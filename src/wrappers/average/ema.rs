//! Exponential moving averages of weights.

use super::averaged::WeightAverage;

/// An exponential moving average of weights.
///
/// *Use it when* the model is to be evaluated or used at any time: the average is better than the weights
/// themselves as long as the learning rate has not gone to zero. Diffusion models, teachers of distillation. *Not
/// when* the last part of the training counts equally: that is [`Swa`](super::Swa).
///
/// ```text
/// update number n, counted from 0; p: the weights, a: the average
/// d ← decay
/// d ← min(decay, (1 + n)/(10 + n))        with warmup
/// c ← c·d                                 c begins at 1
/// w ← 1 − d;  (1 − d)/(1 − c) with debias;  1 if n = 0
/// a ← a + w·(p − a)
/// ```
/// With `debias` this is the average that begins at zero, divided by the sum of its weights, `1 − c`, as Adam's
/// moments are: the first weights count as much as those after them, and not `1/(1 − decay)` times.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `decay` | 0.999 | PyTorch |
/// | `warmup` | false | PyTorch has none; TensorFlow has it with `num_updates` |
/// | `debias` | false | PyTorch has none |
///
/// State: `average`, 4 bytes per `f32`, `bf16` or `f16` parameter, 8 per `f64` one.
///
/// # Errors
/// `build` refuses a `decay` outside `[0, 1]`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0f32];
/// let mut opt = Sgd { lr: 1.0, ..Sgd::default() }.build()?;
/// let mut ema = Ema { decay: 0.5, ..Ema::default() }.build()?;
/// for gradient in [0.0, 1.0, -1.0] {
///     opt.step(&mut w, &array![gradient])?; // 1, 0, 1
///     ema.update(&mut w)?;
/// }
/// assert_eq!(ema.weights().values(), [0.75]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// PyTorch's `AveragedModel` with `get_ema_multi_avg_fn`, to a few units in the last place. TensorFlow counts
/// `num_updates` as its program does, here it is the number of updates before this one.
///
/// # Source
/// B. T. Polyak, A. B. Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; the warm-up is that
/// of `tf.train.ExponentialMovingAverage`.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Ema {
    /// How much of the average stays, in `[0, 1]`.
    pub decay: f64,
    /// Less of it stays in the beginning.
    pub warmup: bool,
    /// All weights seen so far count as an exponential average says, the first one too.
    pub debias: bool,
}
crate::config_file::named_fields!(Ema);

impl Default for Ema {
    fn default() -> Self {
        Self { decay: 0.999, warmup: false, debias: false }
    }
}

crate::hyperparameters!(Ema, "Ema", {
    "decay": Unit = decay;
    "warmup": Flag = warmup;
    "debias": Flag = debias;
});

impl WeightAverage for Ema {
    fn weight(&self, n: u64, memory: &mut f64) -> f64 {
        let seen = n as f64;
        let warm = (1.0 + seen) / (10.0 + seen);
        let decay = if self.warmup { self.decay.min(warm) } else { self.decay };
        *memory *= decay;
        let all = 1.0 - *memory;
        match self.debias {
            // nothing but the first weights counts as long as all of them stay
            true if all > 0.0 => (1.0 - decay) / all,
            _ => 1.0 - decay,
        }
    }
}
