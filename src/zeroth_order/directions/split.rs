//! Different laws for different tensors.

use super::sampler::{Directions, Draw, Law, Query, Slopes};
use crate::error::{Error, Result};
use crate::hyper::{Hyper, Hyperparameters};
use crate::numeric::Real;
use crate::optim::Layout;
use crate::params::Select;
use crate::state::{Lookup, Record, StateBytes};

/// One law for some tensors, another for all others: low rank for matrices and signs for the rest, say.
///
/// ```text
/// u_k = law's for the tensors of `select`, the other one's for all others
/// ```
/// Each law sees its own tensors alone: the sphere of [`Random::Sphere`](crate::zeroth_order::Random::Sphere) is that of
/// their elements, [`Hizoo`](crate::zeroth_order::Hizoo) keeps state for them only. Tensors keep their places, and so
/// their random numbers. A law inside a law divides further. Options with the same name in both laws are
/// one option.
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
/// let law = Split::new(Select::ndim(2..), Lozo::default(), Random::Rademacher);
/// let mut estimator = Spsa::with_law(law).build::<f64>()?;
/// let estimate = estimator.estimate(&mut model, |m| m.0.sum() + m.1.sum())?;
/// let mut signs = [0.0; 2];
/// estimate.fill(1, 0, &mut signs);
/// assert_eq!(signs[0].abs(), signs[1].abs());
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Split<A, B> {
    /// Which tensors follow the first law.
    pub select: Select,
    /// Law of the tensors that are selected.
    pub law: A,
    /// Law of all others.
    pub others: B,
}

impl<A, B> Split<A, B> {
    /// `law` for the tensors of `select`, `others` for all others.
    pub fn new(select: Select, law: A, others: B) -> Self {
        Self { select, law, others }
    }
}

impl<A: Law, B: Law> Hyperparameters for Split<A, B> {
    const NAME: &'static str = "Split";

    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.law.visit_options(visitor);
        self.others.visit_options(visitor);
    }

    fn validate_together(&self) -> Result<()> {
        self.law.validate_together()?;
        self.others.validate_together()
    }
}

impl<A: Law, B: Law> Law for Split<A, B> {
    type Directions<R: Real> = SplitDirections<A::Directions<R>, B::Directions<R>>;

    fn directions<R: Real>(&self) -> Self::Directions<R> {
        SplitDirections {
            select: self.select.clone(),
            law: self.law.directions(),
            others: self.others.directions(),
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
    law: A,
    others: B,
    /// Whose each tensor is.
    selected: Vec<bool>,
    /// All tensors as the first law sees them: those of the other have no elements.
    own: Layout,
    /// The same for the second law.
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
    fn begin(&mut self, draw: &Draw<'_, R>) -> Result<()> {
        if self.selected.len() != draw.layout.segments().len() {
            self.divide(draw.layout);
        }
        if !self.selected.contains(&true) {
            let select = self.select.label().to_owned();
            return Err(Error::EmptyGroup { group: 0, select });
        }
        self.law.begin(&Draw { layout: &self.own, ..*draw })?;
        self.others.begin(&Draw { layout: &self.rest, ..*draw })
    }

    fn probe(&self, query: &Query<'_, R>, offset: usize, out: &mut [R]) {
        match self.is_selected(query.tensor) {
            true => self.law.probe(query, offset, out),
            false => self.others.probe(query, offset, out),
        }
    }

    fn update(&self, query: &Query<'_, R>, offset: usize, out: &mut [R]) {
        match self.is_selected(query.tensor) {
            true => self.law.update(query, offset, out),
            false => self.others.update(query, offset, out),
        }
    }

    fn scale(&self, tensor: usize) -> f64 {
        match self.is_selected(tensor) {
            true => self.law.scale(tensor),
            false => self.others.scale(tensor),
        }
    }

    fn needs_centre(&self) -> bool {
        self.law.needs_centre() || self.others.needs_centre()
    }

    fn observe(&mut self, draw: &Draw<'_, R>, slopes: &Slopes) {
        self.law.observe(&Draw { layout: &self.own, ..*draw }, slopes);
        self.others.observe(&Draw { layout: &self.rest, ..*draw }, slopes);
    }

    fn own_estimate(&self, at: &Query<'_, R>, offset: usize, out: &mut [R]) -> bool {
        match self.is_selected(at.tensor) {
            true => self.law.own_estimate(at, offset, out),
            false => self.others.own_estimate(at, offset, out),
        }
    }

    fn bound(&self) -> Option<f64> {
        Some(self.law.bound()?.max(self.others.bound()?))
    }

    fn count(&self, bytes: &mut StateBytes) {
        self.law.count(bytes);
        self.others.count(bytes);
    }

    fn save(&self, record: &mut Record<'_>) {
        self.law.save(&mut record.nested("law"));
        self.others.save(&mut record.nested("others"));
    }

    fn load(&mut self, layout: &Layout, lookup: &Lookup<'_>) -> Result<()> {
        self.divide(layout);
        self.law.load(&self.own, &lookup.nested("law"))?;
        self.others.load(&self.rest, &lookup.nested("others"))
    }
}
