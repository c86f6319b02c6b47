//! Clipping by norm and by value.

use super::norm::total_norm;
use crate::error::{Error, Result};
use crate::numeric::Element;
use crate::numeric::range::HARMLESS;
use crate::params::{Clamped, GradVisitor, Gradients, Scaled};

/// Scales gradients down to norm `max_norm` if their common 2-norm is larger: PyTorch's
/// `clip_grad_norm_`, as a view.
///
/// ```text
/// g ← g·min(1, max_norm/(‖all g‖₂ + 1e-6))
/// ```
/// Reads the gradients once to measure them; the factor is applied inside the update. If the norm is
/// finite and not huge the update does not check them again. If it is NaN the factor is NaN, if it is
/// infinite the factor is 0, as in PyTorch; the update then refuses the gradients, unless its
/// [`NonFinite`](crate::optim::NonFinite) policy says otherwise. A buffer that does not fit its shape gives a NaN norm here, and its
/// error in the update, as has a `max_norm` that is negative or NaN. For other norms, and for an error at once,
/// see [`ClipNorm`].
///
/// # Examples
/// ```
/// use eigenstep::{gradient::clip_grad_norm, prelude::*};
/// use ndarray::array;
///
/// let (mut w, g) = (array![0.0f64, 0.0], array![3.0, 4.0]);
/// let mut opt = Sgd { lr: 1.0, ..Sgd::default() }.build()?;
/// let clipped = clip_grad_norm(&g, 1.0);
/// assert_eq!(clipped.norm(), 5.0);
/// opt.step(&mut w, &clipped)?;
/// assert!((w[0] + 0.6).abs() < 1e-6 && (w[1] + 0.8).abs() < 1e-6);
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// Source: R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural
/// networks", 2013.
pub fn clip_grad_norm<T: Element, G: Gradients<T> + ?Sized>(
    grads: &G,
    max_norm: f64,
) -> Clipped<'_, G> {
    // what is wrong with a leaf, the step will say
    let norm = total_norm(grads, 2.0).unwrap_or(f64::NAN);
    Clipped::new(grads, max_norm, norm, true)
}

/// Scales gradients down to norm `max_norm` if `norm`, measured before, is larger: PyTorch's
/// `clip_grads_with_norm_`.
///
/// Does not look at the gradients, so the update checks them for NaN itself; it refuses a `max_norm` that is
/// negative or NaN.
///
/// # Examples
/// ```
/// use eigenstep::gradient::{clip_with_norm, total_norm};
/// use ndarray::array;
///
/// let (first, second) = (array![3.0f32], array![4.0f32]);
/// let norm = total_norm(&(&first, &second), 2.0)?;
/// assert!((clip_with_norm(&first, 1.0, norm).factor() - 0.2).abs() < 1e-6);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn clip_with_norm<G: ?Sized>(grads: &G, max_norm: f64, norm: f64) -> Clipped<'_, G> {
    Clipped::new(grads, max_norm, norm, false)
}

/// Clips every element to `[-clip_value, clip_value]`: PyTorch's `clip_grad_value_`, as a view.
///
/// A NaN stays NaN. The update refuses a `clip_value` that is negative or NaN.
///
/// # Examples
/// ```
/// use eigenstep::{gradient::clip_grad_value, prelude::*};
/// use ndarray::array;
///
/// let (mut w, g) = (array![0.0f32, 0.0], array![3.0f32, -0.25]);
/// let mut opt = Sgd { lr: 1.0, ..Sgd::default() }.build()?;
/// opt.step(&mut w, &clip_grad_value(&g, 0.5))?;
/// assert_eq!(w, array![-0.5, 0.25]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn clip_grad_value<G: ?Sized>(grads: &G, clip_value: f64) -> Clamped<'_, G> {
    Clamped { bound: clip_value, inner: grads }
}

/// Gradients seen through the factor of a clip, and the norm they had before.
#[derive(Clone, Copy, Debug)]
pub struct Clipped<'g, G: ?Sized> {
    scaled: Scaled<'g, G>,
    norm: f64,
    max_norm: f64,
}

impl<'g, G: ?Sized> Clipped<'g, G> {
    /// `measured`: the norm comes from every element of `inner`.
    pub(super) fn new(inner: &'g G, max_norm: f64, norm: f64, measured: bool) -> Self {
        let factor = max_norm / (norm + 1e-6);
        // not `min`, which would swallow a NaN
        let factor = if factor > 1.0 { 1.0 } else { factor };
        // as no optimizer refuses them: none has to look again
        let finite = measured && norm * factor <= HARMLESS && (0.0..=1.0).contains(&factor);
        Self { scaled: Scaled { factor, finite, inner }, norm, max_norm }
    }

    /// The norm before clipping.
    pub fn norm(&self) -> f64 {
        self.norm
    }

    /// The factor, at most 1.
    pub fn factor(&self) -> f64 {
        self.scaled.factor
    }
}

impl<T, G: Gradients<T> + ?Sized> Gradients<T> for Clipped<'_, G> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        visitor.measured(self.norm);
        if self.max_norm.is_nan() || self.max_norm < 0.0 {
            let expected = "a number >= 0";
            visitor.refuse(Error::invalid("clip_grad_norm", "max_norm", expected, self.max_norm));
        }
        self.scaled.visit(visitor);
    }
}

/// Clipping by norm with all of PyTorch's options.
///
/// | field | default | |
/// |---|---|---|
/// | `max_norm` | 1 | ≥ 0, also ∞ (measures only); PyTorch has none |
/// | `norm_type` | 2 | any p, also ∞, −∞ and 0, see [`total_norm`]; PyTorch's |
/// | `error_if_nonfinite` | false | PyTorch's |
///
/// # Examples
/// ```
/// use eigenstep::{Error, gradient::ClipNorm};
/// use ndarray::array;
///
/// let clip = ClipNorm { norm_type: f64::INFINITY, ..ClipNorm::default() };
/// assert_eq!(clip.clip(&array![3.0f32, -4.0])?.norm(), 4.0);
///
/// let strict = ClipNorm { error_if_nonfinite: true, ..ClipNorm::default() };
/// assert!(matches!(strict.clip(&array![f32::NAN]), Err(Error::NonFinite { .. })));
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct ClipNorm {
    /// Largest norm that is left alone.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub max_norm: f64,
    /// Which norm.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub norm_type: f64,
    /// Whether a NaN or infinite norm is an error here.
    pub error_if_nonfinite: bool,
}
crate::config_file::named_fields!(ClipNorm);

impl Default for ClipNorm {
    fn default() -> Self {
        Self { max_norm: 1.0, norm_type: 2.0, error_if_nonfinite: false }
    }
}

impl ClipNorm {
    /// The gradients, scaled down if their norm is larger than `max_norm`.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`]; [`Error::NonFinite`] with `error_if_nonfinite`;
    /// [`Error::LengthMismatch`] for a buffer that does not fit its shape.
    pub fn clip<'g, T: Element, G: Gradients<T> + ?Sized>(
        &self,
        grads: &'g G,
    ) -> Result<Clipped<'g, G>> {
        if self.max_norm.is_nan() || self.max_norm < 0.0 {
            return Err(Error::invalid("ClipNorm", "max_norm", "a number >= 0", self.max_norm));
        }
        let norm = total_norm(grads, self.norm_type)?;
        if self.error_if_nonfinite && !norm.is_finite() {
            let what = "the total norm of the gradients";
            return Err(Error::NonFinite { what, value: norm });
        }
        // counts, minima and negative powers do not show every infinity
        Ok(Clipped::new(grads, self.max_norm, norm, self.norm_type > 0.0))
    }
}
