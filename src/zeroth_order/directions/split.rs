//! Different samplers for different tensors.

use super::sampler::{
    DirectionKey, DirectionSampler, DirectionalDerivatives, Directions, StepContext,
};
use crate::error::{Error, Result};
use crate::hyper::{Hyper, Hyperparameters};
use crate::numeric::Real;
use crate::optim::Layout;
use crate::params::Select;
use crate::state::{Lookup, Record, StateBytes};

/// One sampler for some tensors and another for all others, such as low-rank directions for matrices and
/// signs for the rest.
///
/// ```text
/// u_k = direction of `sampler` for the tensors of `select`, of `others` for all others
/// ```
/// Each sampler sees its own tensors only: the sphere of
/// [`Random::Sphere`](crate::zeroth_order::Random::Sphere) is that of their elements, and
/// [`Hizoo`](crate::zeroth_order::Hizoo) keeps state for them alone. Tensors keep their positions in the
/// tree, and therefore their random numbers. Either sampler may be a `Split` again. Options that have the
/// same name in both samplers are one option.
///
/// # Errors
/// The first step refuses a selector that matches no tensor.
///
/// # Examples
/// ```
/// use eigenstep::{params::Select, zeroth_order::{Estimator, Lozo, Random, Split, Spsa}};
/// use ndarray::{Array2, array};
///
/// let mut model = (Array2::<f64>::ones((30, 20)), array![1.0, 2.0]);
/// let sampler = Split::new(Select::ndim(2..), Lozo::default(), Random::Rademacher);
/// let mut estimator = Spsa::with_sampler(sampler).build::<f64>()?;
/// let estimate = estimator.estimate(&mut model, |m| m.0.sum() + m.1.sum())?;
/// let mut signs = [0.0; 2];
/// estimate.fill(1, 0, &mut signs);
/// assert_eq!(signs[0].abs(), signs[1].abs());
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Split<A, B> {
    /// The tensors of the first sampler.
    pub select: Select,
    /// The sampler of the tensors that are selected.
    pub sampler: A,
    /// The sampler of all other tensors.
    pub others: B,
}

impl<A, B> Split<A, B> {
    /// `sampler` for the tensors of `select`, `others` for all others.
    pub fn new(select: Select, sampler: A, others: B) -> Self {
        Self { select, sampler, others }
    }
}

impl<A: DirectionSampler, B: DirectionSampler> Hyperparameters for Split<A, B> {
    const NAME: &'static str = "Split";

    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.sampler.visit_options(visitor);
        self.others.visit_options(visitor);
    }

    fn validate_together(&self) -> Result<()> {
        self.sampler.validate_together()?;
        self.others.validate_together()
    }
}

impl<A: DirectionSampler, B: DirectionSampler> DirectionSampler for Split<A, B> {
    type Directions<R: Real> = SplitDirections<A::Directions<R>, B::Directions<R>>;

    fn directions<R: Real>(&self) -> Self::Directions<R> {
        SplitDirections {
            select: self.select.clone(),
            sampler: self.sampler.directions(),
            others: self.others.directions(),
            begun: [false; 2],
            selected: Vec::new(),
            own: Layout::new(),
            rest: Layout::new(),
        }
    }
}

/// The directions of [`Split`].
#[derive(Clone, Debug)]
pub struct SplitDirections<A, B> {
    select: Select,
    sampler: A,
    others: B,
    /// Whether either sampler has begun the step.
    begun: [bool; 2],
    /// Whether a tensor belongs to the first sampler.
    selected: Vec<bool>,
    /// All tensors as the first sampler sees them: those of the other have no elements.
    own: Layout,
    /// The same for the second sampler.
    rest: Layout,
}

impl<A, B> SplitDirections<A, B> {
    fn divide(&mut self, layout: &Layout) {
        let segments = layout.segments();
        self.selected.clear();
        self.selected.extend(segments.iter().map(|s| self.select.matches(&s.name, &s.shape)));
        self.own = layout.keeping(&self.selected, true);
        self.rest = layout.keeping(&self.selected, false);
    }

    fn is_selected(&self, tensor: usize) -> bool {
        self.selected.get(tensor).copied().unwrap_or(false)
    }
}

impl<R: Real, A: Directions<R>, B: Directions<R>> Directions<R> for SplitDirections<A, B> {
    fn begin(&mut self, context: &StepContext<'_, R>) -> Result<()> {
        self.begun = [false; 2];
        if self.selected.len() != context.layout.segments().len() {
            self.divide(context.layout);
        }
        if !self.selected.contains(&true) {
            let names = context.layout.segments().iter().map(|leaf| leaf.name.as_str());
            return Err(Error::empty_group(0, self.select.label(), names));
        }
        self.begun = [true, false];
        self.sampler.begin(&StepContext { layout: &self.own, ..*context })?;
        self.begun = [true, true];
        self.others.begin(&StepContext { layout: &self.rest, ..*context })
    }

    fn writes_all(&self) -> bool {
        self.sampler.writes_all() && self.others.writes_all()
    }

    fn probe(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        match self.is_selected(key.tensor) {
            true => self.sampler.probe(key, offset, out),
            false => self.others.probe(key, offset, out),
        }
    }

    fn update(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        match self.is_selected(key.tensor) {
            true => self.sampler.update(key, offset, out),
            false => self.others.update(key, offset, out),
        }
    }

    fn scale(&self, tensor: usize) -> f64 {
        match self.is_selected(tensor) {
            true => self.sampler.scale(tensor),
            false => self.others.scale(tensor),
        }
    }

    fn needs_centre(&self) -> bool {
        self.sampler.needs_centre() || self.others.needs_centre()
    }

    fn observe(
        &mut self,
        context: &StepContext<'_, R>,
        derivatives: &DirectionalDerivatives,
    ) -> Result<()> {
        self.sampler.observe(&StepContext { layout: &self.own, ..*context }, derivatives)?;
        self.others.observe(&StepContext { layout: &self.rest, ..*context }, derivatives)
    }

    fn undo(&mut self) {
        // one that has not begun would take back the step before
        let [sampler, others] = self.begun;
        if sampler {
            self.sampler.undo();
        }
        if others {
            self.others.undo();
        }
    }

    fn own_estimate(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) -> bool {
        match self.is_selected(key.tensor) {
            true => self.sampler.own_estimate(key, offset, out),
            false => self.others.own_estimate(key, offset, out),
        }
    }

    fn bound(&self) -> Option<f64> {
        Some(self.sampler.bound()?.max(self.others.bound()?))
    }

    fn count(&self, bytes: &mut StateBytes) {
        self.sampler.count(bytes);
        self.others.count(bytes);
    }

    fn save(&self, record: &mut Record<'_>) {
        // saved under this name from the beginning
        self.sampler.save(&mut record.nested("law"));
        self.others.save(&mut record.nested("others"));
    }

    fn load(&mut self, layout: &Layout, lookup: &Lookup<'_>) -> Result<()> {
        self.divide(layout);
        self.sampler.load(&self.own, &lookup.nested("law"))?;
        self.others.load(&self.rest, &lookup.nested("others"))
    }
}
