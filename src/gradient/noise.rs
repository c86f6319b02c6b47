//! Gaussian noise on gradients.

use super::source::{Tree, fits};
use super::sums::magnitudes;
use super::transformed::{Map, Transformed, mapped};
use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::numeric::random::{name_key, normal_pair, philox4x32};
use crate::numeric::{Element, Real};
use crate::params::Gradients;

/// Keeps these random numbers apart from others of the same seed.
const PURPOSE: u32 = 0x6772_6164;

/// Adds Gaussian noise to gradients that fades with the steps, as a view.
///
/// *Use it when* a deep or badly initialised network does not start to learn. *Not when* batches are
/// small: their gradients are noisy enough.
///
/// ```text
/// g ← g + σ·N(0, 1)     σ² = eta/(1 + t)^gamma,  t = 0, 1, …
/// ```
/// | field | default | source of the default |
/// |---|---|---|
/// | `eta` | 0.3 | paper, the middle one of 0.01, 0.3, 1; ≥ 0 |
/// | `gamma` | 0.55 | paper; ≥ 0, and with 0 the noise does not fade |
/// | `seed` | 0 | ours; to be kept when a run goes on |
///
/// Random numbers are those of Philox, keyed by seed, step, name of the tensor in the tree given, and
/// index: the same for any number of threads and on any machine, and nothing is stored. Add the noise
/// after clipping, as the paper does. Every element gets noise, also those of rows that are not given.
///
/// # Examples
/// ```
/// use eigenstep::{gradient::{GradientNoise, clip_grad_norm}, prelude::*};
/// use ndarray::Array1;
///
/// let mut w = Array1::<f32>::zeros(1000);
/// let mut opt = Sgd { lr: 1.0, ..Sgd::default() }.build()?;
/// let noise = GradientNoise { eta: 0.01, ..GradientNoise::default() };
/// let grads = Array1::<f32>::zeros(1000);
/// opt.step(&mut w, &noise.apply(&clip_grad_norm(&grads, 1.0), 0)?)?;
/// let rms = (w.mapv(|x| x * x).sum() / 1000.0).sqrt();
/// assert!((rms - 0.1).abs() < 0.01); // σ = √0.01
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// # Source
/// A. Neelakantan, L. Vilnis, Q. V. Le, I. Sutskever, L. Kaiser, K. Kurach, J. Martens, "Adding Gradient
/// Noise Improves Learning for Very Deep Networks", 2015.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct GradientNoise {
    /// Variance of the noise at step 0.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub eta: f64,
    /// How fast the variance falls.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub gamma: f64,
    /// Chooses the random numbers.
    pub seed: u64,
}
crate::config_file::named_fields!(GradientNoise);

impl Default for GradientNoise {
    fn default() -> Self {
        Self { eta: 0.3, gamma: 0.55, seed: 0 }
    }
}

crate::hyperparameters!(GradientNoise, "GradientNoise", {
    "eta": NonNegative = eta;
    "gamma": NonNegative = gamma;
});

impl GradientNoise {
    /// Standard deviation of the noise at `step`, counted from 0.
    pub fn deviation(&self, step: u64) -> f64 {
        (self.eta / (1.0 + step as f64).powf(self.gamma)).sqrt()
    }

    /// The gradients with the noise of `step`, counted from 0.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter);
    /// [`Error::LengthMismatch`](crate::Error::LengthMismatch) for a buffer that does not fit its shape.
    pub fn apply<'g, T: Element, G: Gradients<T> + ?Sized>(
        &self,
        grads: &'g G,
        step: u64,
    ) -> Result<Transformed<'g, T, G>> {
        self.validate()?;
        with_noise(grads, self.deviation(step), self.seed, step)
    }
}

/// The gradients with noise of this standard deviation.
pub(super) fn with_noise<T: Element, G: Gradients<T> + ?Sized>(
    grads: &G,
    deviation: f64,
    seed: u64,
    step: u64,
) -> Result<Transformed<'_, T, G>> {
    let Tree { manifest, sources, .. } = Tree::read(grads).checked()?;
    let key = |leaf| seed ^ name_key(manifest.name(leaf));
    let noise = |leaf| Noise { deviation, step, key: key(leaf) };
    // no number of `normal_pair` is larger than 8.7
    let largest = 9.0 * deviation;
    let finite = magnitudes(&sources).into_iter().map(|size| fits::<T>(size + largest));
    let leaves = sources.into_iter().zip(finite).enumerate();
    let edits = leaves.map(|(leaf, (source, finite))| mapped(source, noise(leaf), 1.0, finite));
    Ok(Transformed::new(edits.collect(), grads))
}

/// The noise of one tensor at one step.
struct Noise {
    deviation: f64,
    step: u64,
    key: u64,
}

impl<R: Real> Map<R> for Noise {
    fn apply(&self, offset: usize, xs: &mut [R]) {
        let (mut pair, mut skip) = (offset / 2, offset % 2);
        let mut xs = xs.iter_mut();
        while xs.len() > 0 {
            let numbers = self.pair(pair as u64);
            for (number, x) in numbers.into_iter().skip(skip).zip(xs.by_ref()) {
                *x = R::of(x.widen() + self.deviation * number);
            }
            (pair, skip) = (pair + 1, 0);
        }
    }
}

impl Noise {
    fn pair(&self, index: u64) -> [f64; 2] {
        let words = |x: u64| [x as u32, (x >> 32) as u32];
        let ([low, high], [t, later], [key, rest]) =
            (words(index), words(self.step), words(self.key));
        normal_pair(philox4x32([low, high, t, later], [key, rest ^ PURPOSE]))
    }
}
