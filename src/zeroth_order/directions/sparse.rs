//! Directions that change only some parameters.

use super::random::Random;
use super::sampler::{
    DirectionKey, DirectionSampler, DirectionalDerivatives, Directions, StepContext, check_names,
};
use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters};
use crate::kernel::parallel::for_each_piece;
use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use crate::optim::{Layout, ReadVector, Segment};
use crate::state::{Lookup, Record, StateBytes, StateTensor};
use crate::zeroth_order::estimator::Purpose;
use std::collections::BTreeMap;

/// Which parameters are perturbed and updated.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub enum Mask {
    /// The small parameters of every tensor: those of magnitude at most `h_k`, which is chosen such that a
    /// share `density` of the tensor qualifies at the first step. Later steps compare with the same `h_k`.
    SmallWeights {
        /// The share of every tensor, in `(0, 1]`.
        density: f64,
    },
    /// The parameters whose magnitude is at most a bound, which is given by name of the tensor; all
    /// parameters of tensors that are not named. The first step refuses names that no tensor has.
    Below(BTreeMap<String, f64>),
    /// Every parameter with probability `1 − sparsity`, drawn anew for every direction.
    Random {
        /// The probability that a parameter is left out, in `[0, 1)`.
        sparsity: f64,
    },
}

/// Directions of another sampler, with zeros outside a mask.
///
/// ```text
/// u = v = m ⊙ z        m: 1 where the mask lets a parameter move, else 0
/// ```
/// The mask is computed from the parameters before the step and is the same for all probes, except that
/// [`Mask::Random`] is drawn for every direction. The estimate is one of the masked gradient; with
/// [`Mask::Random`] its mean is `(1 − s)·g`.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, zeroth_order::{Estimator, Mask, Sparse, Spsa}};
/// use ndarray::array;
///
/// let sampler = Sparse { mask: Mask::SmallWeights { density: 0.5 }, ..Sparse::default() };
/// let mut estimator = Spsa::with_sampler(sampler).build::<f64>()?;
/// let mut w = array![3.0, 0.1, -5.0, 0.2];
/// let mut opt = Sgd { lr: 0.1, ..Sgd::default() }.build()?;
/// let estimate = estimator.estimate(&mut w, |w| w.sum())?;
/// opt.step(&mut w, &estimate)?;
/// assert!(w[0] == 3.0 && w[2] == -5.0 && w[1] != 0.1);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// Y. Liu, Z. Zhu, C. Gong, M. Cheng, C.-J. Hsieh, Y. You, "Sparse MeZO: Less Parameters for Better
/// Performance in Zeroth-Order LLM Fine-Tuning", 2024; `Random`: Y. Zhang et al., "Revisiting
/// Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: A Benchmark", 2024, whose code compares
/// a normal number where a uniform one is meant.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default = "Sparse::of_file", deny_unknown_fields, remote = "Self")
)]
#[cfg_attr(feature = "serde", serde(bound(deserialize = "S: Default + serde::Deserialize<'de>")))]
pub struct Sparse<S = Random> {
    /// The sampler of `z`.
    pub sampler: S,
    /// Which parameters are perturbed and updated.
    pub mask: Mask,
}
crate::config_file::named_fields!(Sparse<S>, S);

impl<S: Default> Sparse<S> {
    /// The defaults of a configuration file.
    #[cfg(feature = "serde")]
    fn of_file() -> Self {
        Self { sampler: S::default(), mask: Mask::SmallWeights { density: 0.25 } }
    }
}

impl Default for Sparse {
    fn default() -> Self {
        Self { sampler: Random::default(), mask: Mask::SmallWeights { density: 0.25 } }
    }
}

impl<S: DirectionSampler> Hyperparameters for Sparse<S> {
    const NAME: &'static str = "Sparse";

    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.sampler.visit_options(visitor);
    }

    fn validate_together(&self) -> Result<()> {
        self.sampler.validate_together()?;
        match &self.mask {
            &Mask::SmallWeights { density } if !(density > 0.0 && density <= 1.0) => {
                Err(Self::invalid("density", "in (0, 1]", density.to_string()))
            }
            &Mask::Random { sparsity } if !(0.0..1.0).contains(&sparsity) => {
                Err(Self::invalid("sparsity", "in [0, 1)", sparsity.to_string()))
            }
            Mask::Below(bounds) if bounds.values().any(|h| h.is_nan()) => {
                Err(Self::invalid("mask", "numbers", "NaN"))
            }
            _ => Ok(()),
        }
    }
}

impl<S: DirectionSampler> DirectionSampler for Sparse<S> {
    type Directions<R: Real> = SparseDirections<S::Directions<R>>;

    fn directions<R: Real>(&self) -> Self::Directions<R> {
        SparseDirections {
            inner: self.sampler.directions(),
            mask: self.mask.clone(),
            thresholds: Vec::new(),
            starts: Vec::new(),
            moves: Vec::new(),
        }
    }
}

/// The directions of [`Sparse`].
#[derive(Clone, Debug)]
pub struct SparseDirections<D> {
    inner: D,
    mask: Mask,
    /// `h_k` of every tensor.
    thresholds: Vec<f64>,
    /// The first byte of every tensor's bits.
    starts: Vec<usize>,
    /// One bit per parameter. Every tensor begins at a new byte.
    moves: Vec<u8>,
}

/// The magnitude that a share `density` of a tensor does not exceed.
fn quantile<R: Real>(parameters: &dyn ReadVector<R>, segment: &Segment, density: f64) -> f64 {
    let mut sizes = vec![R::zero(); segment.numel()];
    parameters.load(segment.offset, &mut sizes);
    let mut sizes: Vec<R::Bits> = sizes.iter().map(|x| x.magnitude_bits()).collect();
    let count = (density * sizes.len() as f64).ceil() as usize;
    let Some(rank) = count.min(sizes.len()).checked_sub(1) else { return 0.0 };
    R::from_magnitude_bits(*sizes.select_nth_unstable(rank).1).widen()
}

impl<D> SparseDirections<D> {
    /// Computes the bits of all tensors from their parameters.
    fn mark<R: Real>(&mut self, context: &StepContext<'_, R>) {
        let segments = context.layout.segments();
        self.starts.clear();
        let mut bytes = 0;
        for segment in segments {
            self.starts.push(bytes);
            bytes += segment.numel().div_ceil(8);
        }
        self.moves.resize(bytes, 0);
        let mut rest = self.moves.as_mut_slice();
        for (segment, &threshold) in segments.iter().zip(&self.thresholds) {
            let (bits, later) = rest.split_at_mut(segment.numel().div_ceil(8));
            for_each_piece(bits, 1 << 11, |first, bits| {
                let offset = 8 * first;
                let len = (8 * bits.len()).min(segment.numel() - offset);
                with_scratch(len, |values: &mut [R]| {
                    context.parameters.load(segment.offset + offset, values);
                    for (byte, values) in bits.iter_mut().zip(values.chunks(8)) {
                        let bit = |(i, x): (usize, &R)| u8::from(x.widen().abs() <= threshold) << i;
                        *byte = values.iter().enumerate().map(bit).fold(0, |all, bit| all | bit);
                    }
                });
            });
            rest = later;
        }
    }

    fn hide<R: Real>(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        if let Mask::Random { sparsity } = self.mask {
            let stream = key.stream(Purpose::Coordinates);
            with_scratch(out.len(), |draws: &mut [f64]| {
                key.noise.uniform(&stream, offset, draws);
                for (x, &mut draw) in out.iter_mut().zip(draws) {
                    *x = if draw < sparsity { R::zero() } else { *x };
                }
            });
            return;
        }
        self.hide_fixed(key.tensor, offset, out);
    }

    fn hide_fixed<R: Real>(&self, tensor: usize, offset: usize, out: &mut [R]) {
        let start = self.starts.get(tensor).copied().unwrap_or(0);
        let bits = self.moves.get(start..).unwrap_or_default();
        for (i, x) in (offset..).zip(out) {
            let byte = bits.get(i / 8).copied().unwrap_or(0);
            *x = if byte >> (i % 8) & 1 == 1 { *x } else { R::zero() };
        }
    }
}

impl<R: Real, D: Directions<R>> Directions<R> for SparseDirections<D> {
    fn begin(&mut self, context: &StepContext<'_, R>) -> Result<()> {
        let segments = context.layout.segments();
        match &self.mask {
            Mask::Random { .. } => {}
            Mask::Below(bounds) => {
                check_names(bounds.keys(), context.layout)?;
                let bound = |segment: &Segment| bounds.get(&segment.name).copied();
                self.thresholds =
                    segments.iter().map(|s| bound(s).unwrap_or(f64::INFINITY)).collect();
                self.mark(context);
            }
            &Mask::SmallWeights { density } => {
                if self.thresholds.len() != segments.len() {
                    let threshold = |segment| quantile(context.parameters, segment, density);
                    self.thresholds = segments.iter().map(threshold).collect();
                }
                self.mark(context);
            }
        }
        self.inner.begin(context)
    }

    fn writes_all(&self) -> bool {
        self.inner.writes_all()
    }

    fn probe(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        self.inner.probe(key, offset, out);
        self.hide(key, offset, out);
    }

    fn update(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        self.inner.update(key, offset, out);
        self.hide(key, offset, out);
    }

    /// Parameters outside a fixed mask were never perturbed. A random mask is replaced by its mean.
    fn own_estimate(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) -> bool {
        let own = self.inner.own_estimate(key, offset, out);
        match self.mask {
            _ if !own => {}
            Mask::Random { sparsity } => {
                out.iter_mut().for_each(|x| *x *= R::of(1.0 - sparsity));
            }
            _ => self.hide_fixed(key.tensor, offset, out),
        }
        own
    }

    fn scale(&self, tensor: usize) -> f64 {
        self.inner.scale(tensor)
    }

    fn needs_centre(&self) -> bool {
        self.inner.needs_centre()
    }

    fn observe(
        &mut self,
        context: &StepContext<'_, R>,
        derivatives: &DirectionalDerivatives,
    ) -> Result<()> {
        self.inner.observe(context, derivatives)
    }

    fn undo(&mut self) {
        self.inner.undo();
    }

    fn bound(&self) -> Option<f64> {
        self.inner.bound()
    }

    fn count(&self, bytes: &mut StateBytes) {
        bytes.add("mask", self.moves.len());
        self.inner.count(bytes);
    }

    fn save(&self, record: &mut Record<'_>) {
        if matches!(self.mask, Mask::SmallWeights { .. }) && !self.thresholds.is_empty() {
            let tensor = StateTensor::new(&[self.thresholds.len()], &self.thresholds);
            record.tensor("thresholds", tensor);
        }
        self.inner.save(record);
    }

    fn load(&mut self, layout: &Layout, lookup: &Lookup<'_>) -> Result<()> {
        self.thresholds = match self.mask {
            Mask::SmallWeights { .. } if !layout.segments().is_empty() => {
                lookup.values("thresholds", &[layout.segments().len()])?
            }
            _ => Vec::new(),
        };
        self.inner.load(layout, lookup)
    }
}
