//! Perturbations whose size follows the tensor.

use super::random::Random;
use super::sampler::{
    DirectionKey, DirectionSampler, DirectionalDerivatives, Directions, StepContext, check_names,
};
use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters};
use crate::kernel::parallel::sum_pieces;
use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use crate::numeric::reduce::sum_of_squares;
use crate::optim::{Layout, ReadVector, Segment};
use crate::state::{Lookup, Record, StateBytes};
use std::collections::BTreeMap;

/// The scale `c_k` of each tensor.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum LayerScales {
    /// `‖p_k‖/√d_k`, the root mean square of the tensor before the step; 1 for a tensor of zeros.
    #[default]
    ParameterNorm,
    /// The scales by name; 1 for tensors that are not named. The first step refuses names that no tensor
    /// has.
    Given(BTreeMap<String, f64>),
}

/// Directions of another sampler, divided by a scale for every tensor.
///
/// ```text
/// probe  u_k = z_k / c_k
/// update v_k = c_k·z_k          if `unbiased`; else z_k, which estimates g_k/c_k
/// ```
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::{Estimator, LayerScaled, Random, Spsa};
/// use ndarray::array;
///
/// let mut model = (array![100.0f64, 50.0], array![0.01]);
/// let sampler = LayerScaled::<Random>::default();
/// let mut estimator = Spsa { sampler, ..Spsa::with_sampler(LayerScaled::default()) }.build::<f64>()?;
/// estimator.estimate(&mut model, |m| m.0.sum() + m.1[0])?;
/// assert_eq!(model.0[0], 100.0);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// S. Malladi et al., "Fine-Tuning Language Models with Just Forward Passes", 2023, appendix B. The
/// authors' code divides the norm of a tensor by its own square root where √d_k is meant.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default = "LayerScaled::of_file", deny_unknown_fields, remote = "Self")
)]
#[cfg_attr(feature = "serde", serde(bound(deserialize = "S: Default + serde::Deserialize<'de>")))]
pub struct LayerScaled<S = Random> {
    /// The sampler of `z`.
    pub sampler: S,
    /// Where `c_k` comes from.
    pub scales: LayerScales,
    /// Whether the update is multiplied by `c_k`.
    pub unbiased: bool,
}
crate::config_file::named_fields!(LayerScaled<S>, S);

impl<S: Default> LayerScaled<S> {
    /// The defaults of a configuration file.
    #[cfg(feature = "serde")]
    fn of_file() -> Self {
        Self { sampler: S::default(), scales: LayerScales::default(), unbiased: true }
    }
}

impl Default for LayerScaled {
    fn default() -> Self {
        Self { sampler: Random::default(), scales: LayerScales::default(), unbiased: true }
    }
}

impl<S: DirectionSampler> Hyperparameters for LayerScaled<S> {
    const NAME: &'static str = "LayerScaled";

    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.sampler.visit_options(visitor);
    }

    fn validate_together(&self) -> Result<()> {
        self.sampler.validate_together()?;
        match &self.scales {
            LayerScales::Given(given) => {
                match given.iter().find(|(_, c)| !(**c > 0.0 && c.is_finite())) {
                    Some((name, c)) => {
                        Err(Self::invalid("scales", "finite and > 0", format!("{c} for `{name}`")))
                    }
                    None => Ok(()),
                }
            }
            LayerScales::ParameterNorm => Ok(()),
        }
    }
}

impl<S: DirectionSampler> DirectionSampler for LayerScaled<S> {
    type Directions<R: Real> = ScaledDirections<S::Directions<R>>;

    fn directions<R: Real>(&self) -> Self::Directions<R> {
        ScaledDirections {
            inner: self.sampler.directions(),
            source: self.scales.clone(),
            unbiased: self.unbiased,
            scales: Vec::new(),
        }
    }
}

/// The directions of [`LayerScaled`].
#[derive(Clone, Debug)]
pub struct ScaledDirections<D> {
    inner: D,
    source: LayerScales,
    unbiased: bool,
    scales: Vec<f64>,
}

impl<D> ScaledDirections<D> {
    fn of(&self, tensor: usize) -> f64 {
        self.scales.get(tensor).copied().unwrap_or(1.0)
    }
}

/// The root mean square of one tensor.
fn root_mean_square<R: Real>(parameters: &dyn ReadVector<R>, segment: &Segment) -> f64 {
    let squares = sum_pieces(segment.numel(), 1 << 14, |offset, len| {
        with_scratch(len, |values: &mut [R]| {
            parameters.load(segment.offset + offset, values);
            sum_of_squares(values)
        })
    });
    (squares / segment.numel().max(1) as f64).sqrt()
}

impl<R: Real, D: Directions<R>> Directions<R> for ScaledDirections<D> {
    fn begin(&mut self, context: &StepContext<'_, R>) -> Result<()> {
        if let LayerScales::Given(given) = &self.source {
            check_names(given.keys(), context.layout)?;
        }
        self.scales.clear();
        self.scales.extend(context.layout.segments().iter().map(|segment| match &self.source {
            LayerScales::Given(given) => given.get(&segment.name).copied().unwrap_or(1.0),
            LayerScales::ParameterNorm => {
                let size = root_mean_square(context.parameters, segment);
                if size > 0.0 && size.is_finite() { size } else { 1.0 }
            }
        }));
        self.inner.begin(context)
    }

    fn writes_all(&self) -> bool {
        self.inner.writes_all()
    }

    fn probe(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        self.inner.probe(key, offset, out);
        let scale = R::of(self.of(key.tensor));
        for x in out {
            *x /= scale;
        }
    }

    fn update(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        self.inner.update(key, offset, out);
    }

    fn scale(&self, tensor: usize) -> f64 {
        let inner = self.inner.scale(tensor);
        if self.unbiased { inner * self.of(tensor) } else { inner }
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

    fn own_estimate(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) -> bool {
        self.inner.own_estimate(key, offset, out)
    }

    fn bound(&self) -> Option<f64> {
        self.inner.bound()
    }

    fn count(&self, bytes: &mut StateBytes) {
        self.inner.count(bytes);
    }

    fn save(&self, record: &mut Record<'_>) {
        self.inner.save(record);
    }

    fn load(&mut self, layout: &Layout, lookup: &Lookup<'_>) -> Result<()> {
        self.inner.load(layout, lookup)
    }
}
