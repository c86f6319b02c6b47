//! Tensors of integers.

use crate::error::{Error, Result, check_length};
use crate::numeric::Real;
use ndarray::{ArrayD, IxDyn};

/// A tensor whose elements are small integers times a scale: `w = scale·code`. It takes one byte per
/// element.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::IntTensor;
///
/// let w = IntTensor::new(&[2, 2], 0.5, vec![1, -2, 0, 7])?;
/// assert_eq!(w.dequantize::<f32>()[[1, 1]], 3.5);
/// assert!(IntTensor::new(&[2, 2], 0.5, vec![1]).is_err());
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct IntTensor {
    shape: Vec<usize>,
    pub(super) scale: f64,
    pub(super) codes: Vec<i8>,
}

impl IntTensor {
    /// A tensor of row-major codes.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] unless `scale` is finite and above 0;
    /// [`Error::LengthMismatch`] unless there are as many codes as the shape has elements.
    pub fn new(shape: &[usize], scale: f64, codes: Vec<i8>) -> Result<Self> {
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(Error::invalid("IntTensor", "scale", "finite and > 0", scale));
        }
        let numel = shape.iter().try_fold(1usize, |numel, &dim| numel.checked_mul(dim));
        check_length("codes", shape, numel.unwrap_or(usize::MAX), codes.len())?;
        Ok(Self { shape: shape.to_vec(), scale, codes })
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The factor of the codes.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The codes, row-major.
    pub fn codes(&self) -> &[i8] {
        &self.codes
    }

    /// The elements as numbers.
    pub fn dequantize<R: Real>(&self) -> ArrayD<R> {
        let mut codes = self.codes.iter();
        let next = || R::of(self.scale * codes.next().map_or(0.0, |&code| f64::from(code)));
        ArrayD::from_shape_simple_fn(IxDyn(&self.shape), next)
    }
}
