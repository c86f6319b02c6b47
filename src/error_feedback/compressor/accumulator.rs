//! Error feedback around a compressor.

use super::{Compressor, Message, check_contraction};
use crate::error::{Error, Result, check_finite};
use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use crate::state::{Lookup, Record, Scalar, StateBytes, StateTensor};

const NAME: &str = "Accumulator";

/// Error feedback around a compressor: what it drops from a vector is added to the next vector.
///
/// ```text
/// a = ξ + g
/// c = C(a)
/// ξ ← a − c                      Σ c + ξ = Σ g
/// ```
/// `g` and `ξ` are flat vectors of the same length. If `‖g‖ ≤ M`, the norm of the residual stays below
/// `M·√(1−δ)/(1−√(1−δ))`, which is less than `2M/δ`. If you clip gradients, clip `g`, not `c`.
///
/// State: `ξ` with 4 bytes per `f32` element, and the state of the compressor.
///
/// # Errors
/// [`Accumulator::new`] refuses options out of range. It also refuses a compressor that is not a
/// contraction for vectors of this length: its residual would grow without bound.
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::compressor::{Accumulator, Selection, TopK};
///
/// let compressor = TopK(Selection::Count { k: 1 });
/// let mut feedback = Accumulator::<f64>::new(Box::new(compressor), 3)?;
/// let mut c = [0.0; 3];
/// feedback.step(&[1.0, 3.0, 2.0])?.decompress_into(&mut c);
/// assert_eq!(c, [0.0, 3.0, 0.0]);
/// assert_eq!(feedback.residual(), [1.0, 0.0, 2.0]);
/// feedback.step(&[0.5, 0.5, 0.5])?.decompress_into(&mut c);
/// assert_eq!(c, [0.0, 0.0, 2.5]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// F. Seide, H. Fu, J. Droppo, G. Li, D. Yu, "1-Bit Stochastic Gradient Descent and its Application
/// to Data-Parallel Distributed Training of Speech DNNs", Interspeech 2014; S. P. Karimireddy, Q.
/// Rebjock, S. U. Stich, M. Jaggi, "Error Feedback Fixes SignSGD and other Gradient Compression
/// Schemes", ICML 2019.
#[derive(Debug)]
pub struct Accumulator<R: Real> {
    compressor: Box<dyn Compressor<R>>,
    residual: Vec<R>,
    steps: u64,
}

impl<R: Real> Accumulator<R> {
    /// Error feedback for vectors of `numel` elements. The residual starts at zero.
    ///
    /// # Errors
    /// As [`Compressor::validate`]; [`Error::InvalidHyperparameter`] for the field `compressor` if it
    /// is not a contraction.
    pub fn new(compressor: Box<dyn Compressor<R>>, numel: usize) -> Result<Self> {
        compressor.validate(numel)?;
        check_contraction(NAME, &*compressor, numel)?;
        Ok(Self { compressor, residual: vec![R::zero(); numel], steps: 0 })
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.residual.len()
    }

    /// The residual `ξ`.
    pub fn residual(&self) -> &[R] {
        &self.residual
    }

    /// Number of vectors compressed so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The compressor.
    pub fn compressor(&self) -> &dyn Compressor<R> {
        &*self.compressor
    }

    /// Compresses the next vector.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`]; [`Error::NonFiniteGradient`] if an element is not finite;
    /// [`Error::NonFinite`] if the sum with the residual or the compressed vector overflows. After an
    /// error the residual has not changed.
    pub fn step(&mut self, g: &[R]) -> Result<Message<R>> {
        let numel = self.numel();
        if g.len() != numel {
            let (name, shape, found) = (NAME.to_owned(), vec![numel], g.len());
            return Err(Error::LengthMismatch { name, shape, expected: numel, found });
        }
        if let Some((index, value)) = g.iter().enumerate().find(|(_, x)| !x.is_finite()) {
            let (name, value) = (NAME.to_owned(), value.widen());
            return Err(Error::NonFiniteGradient { name, index, value });
        }
        with_scratch::<R, _>(numel, |a| {
            for ((a, &residual), &g) in a.iter_mut().zip(&self.residual).zip(g) {
                *a = residual + g;
            }
            check_finite("the sum of gradient and residual", &*a)?;
            let message = self.compressor.compress(self.steps + 1, a);
            with_scratch::<R, _>(numel, |c| {
                c.fill(R::zero());
                message.decompress_into(c);
                check_finite("the compressed vector", &*c)?;
                for ((residual, &a), &c) in self.residual.iter_mut().zip(&*a).zip(&*c) {
                    *residual = a - c;
                }
                self.steps += 1;
                Ok(message)
            })
        })
    }

    /// Sets the residual to zero.
    pub fn clear(&mut self) {
        self.residual.fill(R::zero());
    }

    /// Counts the bytes of the residual.
    pub fn count_bytes(&self, bytes: &mut StateBytes) {
        bytes.add("residual", size_of_val(self.residual.as_slice()));
    }

    /// Saves the residual, the number of steps and the state of the compressor.
    pub fn save(&self, record: &mut Record<'_>) {
        record.tensor("residual", StateTensor::new(&[self.numel()], &self.residual));
        record.count("step", self.steps);
        self.compressor.save(&mut record.nested("compressor"));
    }

    /// Loads what [`Accumulator::save`] has saved. After an error nothing has changed.
    ///
    /// # Errors
    /// [`Error::StateDict`] names the key.
    pub fn load(&mut self, lookup: &Lookup<'_>) -> Result<()> {
        let residual: Vec<R> = lookup.values("residual", &[self.numel()])?;
        if residual.iter().any(|x| !x.is_finite()) {
            return Err(lookup.problem("residual", "holds a number that is not finite"));
        }
        let steps = lookup.scalar("step").and_then(Scalar::as_u64);
        let steps = steps.ok_or_else(|| lookup.problem("step", "is missing, or no count"))?;
        self.compressor.load(&lookup.nested("compressor"))?;
        (self.residual, self.steps) = (residual, steps);
        Ok(())
    }
}
