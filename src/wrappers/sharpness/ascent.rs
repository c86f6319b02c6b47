//! Parameters on their way uphill, and back to the bit.

use crate::error::{Error, Result};
use crate::numeric::{Element, Real};
use crate::optim::{Optimizer, Problem};
use crate::params::{Gradients, Parameters, Select};
use crate::tree::{Snapshot, TreeVec, axpy, norm, zip_map};
use crate::wrappers::leaves::{PartGrads, select, sort_grads};
use num_traits::Float;
use std::collections::BTreeSet;

/// How long the way uphill is, and how it is measured.
#[derive(Clone, Copy)]
pub(super) struct Way<'w> {
    pub rho: f64,
    /// Parameters that are the measure of their own way, with what is added to their magnitude.
    pub scaled: Option<(&'w Select, f64)>,
    /// Where the inner optimizer goes along the gradient itself, the way is against it.
    pub by_maximize: bool,
}

/// Where the parameters were before they went uphill.
#[derive(Clone, Debug)]
pub(super) struct Ascent<T: Element> {
    before: Snapshot<T>,
    is_up: bool,
}

impl<T: Element> Default for Ascent<T> {
    fn default() -> Self {
        Self { before: Snapshot::new(), is_up: false }
    }
}

impl<T: Element> Ascent<T> {
    /// Whether the parameters have been moved.
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// Bytes of the copy.
    pub fn bytes(&self) -> usize {
        self.before.tree().bytes()
    }

    /// Moves the parameters that `inner` trains uphill, and returns the norm of the gradient. They stay where they
    /// are if the way has no length.
    pub fn climb<O: Optimizer<T> + ?Sized>(
        &mut self,
        inner: &O,
        way: Way<'_>,
        params: &mut dyn Parameters<T>,
        grads: &dyn Gradients<T>,
    ) -> Result<f64> {
        let up = |name: &str, shape: &[usize]| {
            let sign = sign(inner, name, shape)?;
            Some(if way.by_maximize { sign } else { 1.0 })
        };
        let scales = |name: &str, shape: &[usize]| {
            way.scaled.is_some_and(|(scaled, _)| scaled.matches(name, shape))
        };
        let all = trained(grads, |name, shape| up(name, shape).is_some())?;
        let names: BTreeSet<&str> = all.names().collect();
        let has = |name: &str| names.contains(name);
        self.before.retake(&mut select(params, |name, _| has(name))?)?;
        let eta = T::Compute::of(way.scaled.map_or(0.0, |(_, eta)| eta));
        // (|p| + η)·g where the way is relative to the parameters
        let mut product = TreeVec::<T::Compute>::new();
        let length = match way.scaled {
            None => norm(&all)?,
            Some(_) => {
                product.assign(&all)?;
                let scaled = &mut select(params, |name, shape| has(name) && scales(name, shape))?;
                let product_of_scaled = &mut select(&mut product, scales)?;
                zip_map(scaled, product_of_scaled, |p, g| (p.abs() + eta) * g)?;
                norm(&product)?
            }
        };
        if !length.is_finite() {
            return Err(Error::NonFinite { what: "the norm of the gradient", value: length });
        }
        let factor = way.rho / (length + 1e-12);
        if length == 0.0 || factor == 0.0 {
            return Ok(length);
        }
        for (direction, scaled) in [(1.0, false), (1.0, true), (-1.0, false), (-1.0, true)] {
            let part_of = |name: &str, shape: &[usize]| {
                has(name) && up(name, shape) == Some(direction) && scales(name, shape) == scaled
            };
            let part = &mut select(params, part_of)?;
            if !scaled {
                axpy(direction * factor, &trained(grads, part_of)?, part)?;
            } else {
                let factor = T::Compute::of(direction * factor);
                let product = &mut select(&mut product, part_of)?;
                zip_map(product, part, |u, p| p + factor * ((p.abs() + eta) * u))?;
            }
        }
        self.is_up = true;
        Ok(length)
    }

    /// Loss and gradients uphill. The parameters are back afterwards, also if the evaluation fails or panics.
    pub fn evaluate(
        &mut self,
        problem: &mut dyn Problem<T>,
    ) -> Result<(f64, Box<dyn Gradients<T>>)> {
        let guard = Guard { ascent: self, problem };
        let evaluated = guard.problem.evaluate();
        guard.ascent.descend(guard.problem.parameters())?;
        evaluated
    }

    /// Brings the parameters back, to the bit.
    pub fn descend(&mut self, params: &mut dyn Parameters<T>) -> Result<()> {
        if self.is_up {
            let layout = self.before.tree().layout();
            self.before.restore(&mut select(params, |name, _| layout.get(name).is_some())?)?;
            self.is_up = false;
        }
        Ok(())
    }
}

/// 1 for a parameter whose loss is to fall, −1 for one whose objective is to rise, `None` for a frozen one.
pub(super) fn sign<T: Element, O: Optimizer<T> + ?Sized>(
    inner: &O,
    name: &str,
    shape: &[usize],
) -> Option<f64> {
    let group = inner.group_of(name, shape)?;
    Some(if inner.option(group, "maximize") == Some(1.0) { -1.0 } else { 1.0 })
}

/// The gradients for which `keep` holds.
fn trained<'g, T: Element>(
    grads: &'g dyn Gradients<T>,
    keep: impl Fn(&str, &[usize]) -> bool,
) -> Result<PartGrads<'g, T>> {
    let parts = sort_grads(grads, 1, |name, shape| keep(name, shape).then_some(0))?;
    Ok(parts.into_iter().next().unwrap_or_default())
}

/// Brings the parameters back when a closure panics.
struct Guard<'g, T: Element> {
    ascent: &'g mut Ascent<T>,
    problem: &'g mut dyn Problem<T>,
}

impl<T: Element> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        // after an evaluation that returned they are back already
        let _ = self.ascent.descend(self.problem.parameters());
    }
}
