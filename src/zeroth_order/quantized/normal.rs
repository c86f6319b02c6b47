//! Normal directions that are rounded to few bits.

use super::integer_format::{IntegerFormat, stochastic_round_int};
use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters};
use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use crate::zeroth_order::directions::{DirectionKey, DirectionSampler, Directions, StepContext};
use crate::zeroth_order::estimator::Purpose;

/// Normal directions that are rounded to few bits, stochastically and twice: the perturbation and the
/// update are independent roundings of the same numbers.
///
/// ```text
/// z ~ N(0, I),  s = max|z| / qmax            per tensor and direction; qmax = 2^(bits−1) − 1
/// u = s·SR(z/s; r₁),  v = s·SR(z/s; r₂)       r₁, r₂ independent
/// ```
/// `SR` is stochastic rounding. `E[v·uᵀ] = I`, so the estimate is unbiased. If both were the same rounding,
/// every tensor's part would be too large by a factor of `1 + s²/6`, which is 2 % at 4 bits.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::{Estimator, IntegerFormat, QuantizedNormal, Spsa};
/// use ndarray::array;
///
/// let mut w = array![1.0f64, -1.0];
/// let sampler = QuantizedNormal { format: IntegerFormat { bits: 4, full: false } };
/// let mut estimator = Spsa::with_sampler(sampler).build::<f64>()?;
/// let estimate = estimator.estimate(&mut w, |w| w.sum())?;
/// assert!(estimate.report().coefficients[0].is_finite());
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// J. Zhou, Y. Yang, K. Zhen, Z. Liu, Y. Zhao, E. Banijamali, A. Mouchtaris, N. Wong, Z. Zhang, "QuZO:
/// Quantized Zeroth-Order Fine-Tuning for Large Language Models", 2025.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct QuantizedNormal {
    /// The integers of which directions consist, up to their scale.
    pub format: IntegerFormat,
}
crate::config_file::named_fields!(QuantizedNormal);

impl Default for QuantizedNormal {
    fn default() -> Self {
        Self { format: IntegerFormat { bits: 8, full: false } }
    }
}

impl Hyperparameters for QuantizedNormal {
    const NAME: &'static str = "QuantizedNormal";

    fn visit_options(&mut self, _visitor: &mut dyn FnMut(Hyper<'_>)) {}

    fn validate_together(&self) -> Result<()> {
        self.format.validate()
    }
}

impl DirectionSampler for QuantizedNormal {
    type Directions<R: Real> = QuantizedDirections;

    fn directions<R: Real>(&self) -> QuantizedDirections {
        QuantizedDirections { format: self.format, scales: Vec::new(), tensors: 0 }
    }
}

/// The directions of [`QuantizedNormal`].
#[derive(Clone, Debug)]
pub struct QuantizedDirections {
    format: IntegerFormat,
    /// The scales, `[query][tensor]`.
    scales: Vec<f64>,
    tensors: usize,
}

impl QuantizedDirections {
    fn rounded<R: Real>(
        &self,
        key: &DirectionKey<'_, R>,
        purpose: Purpose,
        offset: usize,
        out: &mut [R],
    ) {
        key.noise.normal(&key.stream(Purpose::Direction), offset, out);
        let at = key.query as usize * self.tensors + key.tensor;
        let scale = self.scales.get(at).copied().unwrap_or(0.0);
        let (low, high) = (self.format.qmin(), self.format.qmax());
        with_scratch(out.len(), |uniform: &mut [f64]| {
            key.noise.uniform(&key.stream(purpose), offset, uniform);
            for (x, &mut u) in out.iter_mut().zip(uniform) {
                let code = if scale > 0.0 {
                    stochastic_round_int(x.widen() / scale, u, low, high)
                } else {
                    0
                };
                *x = R::of(scale * f64::from(code));
            }
        });
    }
}

/// Elements whose maximum is taken at once.
const PIECE: usize = 1 << 12;

impl<R: Real> Directions<R> for QuantizedDirections {
    fn begin(&mut self, context: &StepContext<'_, R>) -> Result<()> {
        let segments = context.layout.segments();
        self.tensors = segments.len();
        self.scales.clear();
        for query in 0..context.queries {
            for (tensor, segment) in segments.iter().enumerate() {
                let key = DirectionKey { noise: context.noise, step: context.step, query, tensor };
                let stream = key.stream(Purpose::Direction);
                let mut largest = 0.0f64;
                for offset in (0..segment.numel()).step_by(PIECE) {
                    with_scratch(PIECE.min(segment.numel() - offset), |z: &mut [R]| {
                        context.noise.normal(&stream, offset, z);
                        largest = z.iter().fold(largest, |most, z| most.max(z.widen().abs()));
                    });
                }
                self.scales.push(largest / f64::from(self.format.qmax()));
            }
        }
        Ok(())
    }

    fn writes_all(&self) -> bool {
        true
    }

    fn probe(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        self.rounded(key, Purpose::FirstRounding, offset, out);
    }

    fn update(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        self.rounded(key, Purpose::SecondRounding, offset, out);
    }

    fn bound(&self) -> Option<f64> {
        // a Box-Muller number from 53 bits is below 8.7
        Some(9.0)
    }
}
