//! The factors of one block, and what they do to a gradient.

use super::super::graft::GraftState;
use super::config::Shampoo;
use super::pipeline::{Combination, Statistic};
use crate::error::Result;
use crate::kernel::scratch::with_scratch;
use crate::linalg::modes;
use crate::numeric::Real;
use crate::optim::{BlockState, BlockStep};
use crate::second_order::factor::{Factor, reason};
use crate::second_order::per_axis::each_axis;
use crate::state::{Lookup, Record, StateBytes, Storage};
use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD};

/// What Shampoo remembers of one block.
#[derive(Clone, Debug)]
pub struct ShampooBlock<R> {
    shape: Vec<usize>,
    /// One per dimension; `None`: its exponent is 0.
    factors: Vec<Option<Factor<R>>>,
    pub(super) graft: GraftState<R>,
    failures: u64,
    problem: &'static str,
}

impl<R: Real> ShampooBlock<R> {
    pub(super) fn new<U>(method: &Shampoo<U>, shape: &[usize], storage: &Storage) -> Self {
        let factor = |(axis, &size): (usize, &usize)| {
            let options = method.factor_options(shape, axis, 0);
            (options.exponent > 0.0).then(|| Factor::new(size, &options))
        };
        Self {
            shape: shape.to_vec(),
            factors: shape.iter().enumerate().map(factor).collect(),
            graft: GraftState::new(&method.graft, shape, storage),
            failures: 0,
            problem: "",
        }
    }

    pub(super) fn load<U>(
        method: &Shampoo<U>,
        shape: &[usize],
        storage: &Storage,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        let factor = |(axis, &size): (usize, &usize)| {
            let options = method.factor_options(shape, axis, 0);
            let load = || Factor::load(size, &options, &lookup.nested(&format!("factor{axis}")));
            (options.exponent > 0.0).then(load).transpose()
        };
        Ok(Self {
            shape: shape.to_vec(),
            factors: shape.iter().enumerate().map(factor).collect::<Result<_>>()?,
            graft: GraftState::load(&method.graft, shape, storage, lookup)?,
            failures: lookup.count("failures")?,
            problem: "a decomposition failed before the state was saved",
        })
    }

    /// The factors, one per dimension; `None` where the exponent is 0.
    pub fn factors(&self) -> &[Option<Factor<R>>] {
        &self.factors
    }

    /// Statistics and roots as far as they are due.
    pub(super) fn refresh<U: Sync>(&mut self, step: &BlockStep<'_, R>, method: &Shampoo<U>) {
        let (factors_due, roots_due) = method.due(step.t);
        if !factors_due && !roots_due {
            return;
        }
        let accumulated = if factors_due { self.accumulate(step, method) } else { Ok(()) };
        let done = accumulated.and_then(|()| match roots_due {
            true => self.refresh_roots(step.t, method),
            false => Ok(()),
        });
        match done {
            // statistics that go on say nothing about roots that do not
            Ok(()) if roots_due => self.failures = 0,
            Ok(()) => {}
            Err(error) => {
                self.failures += 1;
                self.problem = reason(&error);
            }
        }
    }

    fn accumulate<U: Sync>(&mut self, step: &BlockStep<'_, R>, method: &Shampoo<U>) -> Result<()> {
        let order = self.factors.len();
        let whitened: Vec<_> = match method.statistic {
            Statistic::Gradient => vec![None; order],
            // all of them before any factor changes
            Statistic::KullbackLeibler => {
                (0..order).map(|axis| Some(self.without(axis, &step.gradient))).collect()
            }
        };
        each_axis(&mut self.factors, &self.shape, |axis, factor| {
            let options = method.factor_options(&self.shape, axis, step.t);
            let whitened = whitened.get(axis).and_then(Option::as_ref);
            let gradient = whitened.map_or(step.gradient.view(), |whitened| whitened.view());
            factor.accumulate_mode(&gradient, axis, &options)
        })
    }

    fn refresh_roots<U: Sync>(&mut self, t: u64, method: &Shampoo<U>) -> Result<()> {
        each_axis(&mut self.factors, &self.shape, |axis, factor| {
            factor.refresh_root(&method.factor_options(&self.shape, axis, t))
        })
    }

    /// `x ← x ×₀ P₀ ×₁ P₁ …` along the dimensions that `chosen` picks.
    fn multiply(&self, x: &mut [R], chosen: impl Fn(usize) -> bool) {
        let stored = |axis: usize| {
            let factor = self.factors.get(axis).filter(|_| chosen(axis))?.as_ref()?;
            Some((factor.stored_root()?, self.shape.get(axis).copied()?))
        };
        let (order, last) = (self.shape.len(), self.shape.len().saturating_sub(1));
        let decoded: usize =
            (0..order).filter_map(stored).map(|(root, n)| root.scratch_len(n)).sum();
        with_scratch::<R, _>(x.len() + decoded, |scratch| {
            let (spare, mut rest) = scratch.split_at_mut(x.len());
            let decode = |axis| stored(axis).map(|(root, n)| root.load_in(n, &mut rest));
            let roots: Vec<_> = (0..order).map(decode).collect();
            modes::multiply(x, spare, &self.shape, |axis| {
                let root = roots.get(axis)?.as_ref()?;
                // a root that rounding has made unsymmetric is used as it is stored: L̂ G R̂
                Some(if axis == last { root.view() } else { root.t() })
            });
        });
    }

    /// The gradient preconditioned along all dimensions but one.
    fn without(&self, axis: usize, g: &ArrayViewD<'_, R>) -> ArrayD<R> {
        let mut g = g.as_standard_layout().into_owned();
        if let Some(slice) = g.as_slice_mut() {
            self.multiply(slice, |other| other != axis);
        }
        g
    }

    /// The preconditioned direction, for the filtered gradient in `out`.
    pub(super) fn apply(&self, combination: Combination, mut out: ArrayViewMutD<'_, R>) {
        if let Some(slice) = out.as_slice_mut() {
            return self.combine(combination, slice);
        }
        // a block of a larger tensor has its rows apart
        with_scratch::<R, _>(out.len(), |whole| {
            whole.iter_mut().zip(&out).for_each(|(whole, &x)| *whole = x);
            self.combine(combination, whole);
            out.iter_mut().zip(&*whole).for_each(|(x, &whole)| *x = whole);
        });
    }

    fn combine(&self, combination: Combination, x: &mut [R]) {
        match combination {
            Combination::Product => self.multiply(x, |_| true),
            Combination::Caspr => {
                self.add_up(x);
                self.add_up(x);
            }
        }
    }

    /// `x ← Σᵢ x ×ᵢ Pᵢ`.
    fn add_up(&self, x: &mut [R]) {
        with_scratch::<R, _>(2 * x.len(), |scratch| {
            let (old, product) = scratch.split_at_mut(x.len());
            old.copy_from_slice(x);
            x.fill(R::zero());
            let with_factor = self.factors.iter().enumerate().filter(|(_, f)| f.is_some());
            for (axis, _) in with_factor {
                product.copy_from_slice(old);
                self.multiply(product, |chosen| chosen == axis);
                x.iter_mut().zip(&*product).for_each(|(x, &term)| *x += term);
            }
        });
    }
}

impl<R: Real> BlockState for ShampooBlock<R> {
    fn count(&self, bytes: &mut StateBytes) {
        self.factors.iter().flatten().for_each(|factor| factor.count(bytes));
        self.graft.count(bytes);
    }

    fn save(&self, record: &mut Record<'_>) {
        for (axis, factor) in self.factors.iter().enumerate() {
            if let Some(factor) = factor {
                factor.save(&mut record.nested(&format!("factor{axis}")));
            }
        }
        self.graft.save(&self.shape, record);
        record.count("failures", self.failures);
    }

    fn failures(&self) -> Option<(u64, &'static str)> {
        (self.failures > 0).then_some((self.failures, self.problem))
    }
}
