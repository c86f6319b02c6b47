//! One block: the inner rule's slots in the eigenbasis, and the basis.

use super::config::Soap;
use super::options::SoapOrder;
use super::side::{BasisChange, Renewal, Side};
use crate::error::{Error, Result};
use crate::kernel::scratch::with_scratch;
use crate::kernel::squares::sum_of_squares;
use crate::linalg::modes;
use crate::numeric::Real;
use crate::numeric::range::flushed;
use crate::optim::{BlockState, ElementState, Elementwise, Rule, TensorState};
use crate::second_order::per_axis::each_axis;
use crate::state::{Lookup, Record, SlotKind, StateBytes, Storage};
use ndarray::{Array2, ArrayView2, ArrayViewD, ArrayViewMutD, IxDyn};

/// What is remembered of one block.
#[derive(Clone, Debug)]
pub struct SoapBlock<R: Real> {
    shape: Vec<usize>,
    inner: ElementState<R>,
    sides: Vec<Option<Side<R>>>,
    failures: u64,
    problem: &'static str,
}

/// A side, and how slots follow its new basis.
type Renewed<'s, R> = (&'s mut Side<R>, Option<BasisChange<R>>);

impl<R: Real> SoapBlock<R> {
    pub(super) fn new<U>(method: &Soap<U>, shape: &[usize], storage: &Storage) -> Self
    where
        U: Rule<GroupState = ()>,
    {
        let side = |(axis, &n): (usize, &usize)| {
            method.has_basis(shape, axis).then(|| Side::new(n, method.codec_of(n)))
        };
        Self {
            shape: shape.to_vec(),
            inner: Elementwise(method.inner.clone()).init(shape, storage),
            sides: shape.iter().enumerate().map(side).collect(),
            failures: 0,
            problem: "",
        }
    }

    pub(super) fn load<U>(
        method: &Soap<U>,
        shape: &[usize],
        storage: &Storage,
        lookup: &Lookup<'_>,
    ) -> Result<Self>
    where
        U: Rule<GroupState = ()>,
    {
        let side = |(axis, &n): (usize, &usize)| {
            let lookup = lookup.nested(&format!("side{axis}"));
            let has_basis = method.has_basis(shape, axis);
            has_basis.then(|| Side::load(n, method.codec_of(n), &lookup)).transpose()
        };
        Ok(Self {
            shape: shape.to_vec(),
            inner: Elementwise(method.inner.clone()).load(shape, storage, lookup)?,
            sides: shape.iter().enumerate().map(side).collect::<Result<_>>()?,
            failures: lookup.count("failures")?,
            problem: "a decomposition failed before the state was saved",
        })
    }

    /// Allocates slots that an option switched on.
    pub(super) fn extend<U>(&mut self, method: &Soap<U>, storage: &Storage)
    where
        U: Rule<GroupState = ()>,
    {
        Elementwise(method.inner.clone()).extend(&mut self.inner, &self.shape, storage);
    }

    /// Statistic and basis of every dimension that has one.
    pub fn sides(&self) -> &[Option<Side<R>>] {
        &self.sides
    }

    /// Step `t` with the gradient `g`; `direction` is written.
    pub(super) fn step<U>(
        &mut self,
        method: &Soap<U>,
        t: u64,
        g: &[R],
        mut direction: ArrayViewMutD<'_, R>,
    ) where
        U: Rule<GroupState = ()>,
    {
        let every = method.update_basis_every;
        match method.order {
            SoapOrder::Published { skip_first } => {
                let k = t - u64::from(skip_first);
                if t == 1 {
                    self.follow(method, t, g, true);
                }
                if k == 0 {
                    return direction.fill(R::zero());
                }
                self.direct(method, k, g, direction);
                if t > 1 {
                    self.follow(method, t, g, k.is_multiple_of(every));
                }
            }
            SoapOrder::Distributed { start, .. } => {
                let due = t == start || t > start && t.is_multiple_of(every);
                self.follow(method, t, g, due);
                self.direct(method, t, g, direction);
            }
        }
    }

    /// Takes the gradient into the statistics, and renews the bases if that is `due`.
    fn follow<U>(&mut self, method: &Soap<U>, t: u64, g: &[R], due: bool) {
        let outcome = self.observe(g, method.weights(1)).and_then(|()| {
            let first = t == 1 && matches!(method.order, SoapOrder::Published { .. });
            if due { self.renew(g, &Renewal::new(method, t, first)) } else { Ok(()) }
        });
        match outcome {
            Ok(()) if due => self.failures = 0,
            Ok(()) => {}
            Err(error) => {
                self.failures += 1;
                self.problem = match error {
                    Error::Decomposition { problem, .. } => problem,
                    _ => "a statistic is not finite",
                };
            }
        }
    }

    /// Statistics in full precision see every gradient.
    fn observe(&mut self, g: &[R], weights: (R, R)) -> Result<()> {
        // no entry of a Gram matrix is larger than its trace
        let squares = sum_of_squares(g);
        if !R::of(squares).is_finite() {
            return Err(Error::NonFinite { what: "the square of a gradient", value: squares });
        }
        let shape = &self.shape;
        each_axis(&mut self.sides, shape, |axis, side| match side {
            Side::Full { statistic, .. } => {
                modes::add_gram(g, shape, axis, weights, statistic)?;
                statistic.mapv_inplace(flushed);
                Ok(())
            }
            Side::Quantized(_) => Ok(()),
        })
    }

    /// Renews all bases, and rotates the slots into the new ones.
    fn renew(&mut self, g: &[R], renewal: &Renewal<R>) -> Result<()> {
        let shape = &self.shape;
        let mut sides: Vec<Option<Renewed<'_, R>>> =
            self.sides.iter_mut().map(|side| Some((side.as_mut()?, None))).collect();
        let outcome = each_axis(&mut sides, shape, |axis, (side, change)| {
            let gram = || {
                let n = shape.get(axis).copied().unwrap_or(0);
                let mut gram = Array2::zeros((n, n));
                modes::add_gram(g, shape, axis, (R::zero(), R::one()), &mut gram)?;
                Ok(gram)
            };
            *change = Some(side.renew(renewal, gram)?);
            Ok(())
        });
        // sides that failed stay, and slots follow the others
        let changes: Vec<Option<BasisChange<R>>> = sides.into_iter().map(|side| side?.1).collect();
        self.inner.change_slots(shape.iter().product(), |slot, values| match slot.kind {
            SlotKind::Signed => with_scratch::<R, _>(values.len(), |spare| {
                modes::multiply(values, spare, shape, |axis| {
                    changes.get(axis)?.as_ref().map(|change| change.rotation.view())
                });
            }),
            SlotKind::Unsigned => {
                for (axis, change) in changes.iter().enumerate() {
                    if let Some(order) = change.as_ref().and_then(|change| change.order.as_ref()) {
                        modes::permute(values, shape, axis, order);
                    }
                }
            }
            SlotKind::Iterate | SlotKind::Input(_) => {}
        });
        outcome
    }

    /// `direction ← Q(inner(Qᵀ g))`, with the inner rule's step number `k`.
    fn direct<U>(&mut self, method: &Soap<U>, k: u64, g: &[R], mut direction: ArrayViewMutD<'_, R>)
    where
        U: Rule<GroupState = ()>,
    {
        let Self { shape, inner, sides, .. } = self;
        with_scratch::<R, _>(3 * g.len(), |scratch| {
            let (rotated, rest) = scratch.split_at_mut(g.len());
            let (u, spare) = rest.split_at_mut(g.len());
            rotated.copy_from_slice(g);
            with_bases(sides, method.storage.rectify(), |basis| {
                modes::multiply(rotated, spare, shape, basis);
                Elementwise(method.inner.clone()).direction(k, rotated, inner, u);
                modes::multiply(u, spare, shape, |axis| basis(axis).map(ArrayView2::reversed_axes));
            });
            if method.normalize_grads {
                let mean = sum_of_squares(u) / g.len().max(1) as f64;
                let scale = R::of(1.0 / (1e-30 + mean.sqrt()));
                u.iter_mut().for_each(|u| *u *= scale);
            }
            if let Ok(u) = ArrayViewD::from_shape(IxDyn(shape), &*u) {
                direction.assign(&u);
            }
        });
    }
}

/// Calls `f` with the bases by dimension; only those that are codes need memory.
fn with_bases<R: Real>(
    sides: &[Option<Side<R>>],
    rectify: usize,
    f: impl for<'a> FnOnce(&'a dyn Fn(usize) -> Option<ArrayView2<'a, R>>),
) {
    let exact = |side: &Side<R>| matches!(side, Side::Full { .. });
    if sides.iter().flatten().all(exact) {
        return f(&|axis| match sides.get(axis)? {
            Some(Side::Full { basis, .. }) => Some(basis.view()),
            _ => None,
        });
    }
    // codes are finite, and so is what the iteration makes of them
    let bases = sides.iter().map(|side| side.as_ref().and_then(|side| side.basis(rectify).ok()));
    let bases: Vec<_> = bases.collect();
    f(&|axis| bases.get(axis)?.as_ref().map(|basis| basis.view()));
}

impl<R: Real> BlockState for SoapBlock<R> {
    fn count(&self, bytes: &mut StateBytes) {
        self.inner.count(bytes);
        self.sides.iter().flatten().for_each(|side| side.count(bytes));
    }

    fn save(&self, record: &mut Record<'_>) {
        self.inner.save(&self.shape, record);
        for (axis, side) in self.sides.iter().enumerate() {
            if let Some(side) = side {
                side.save(&mut record.nested(&format!("side{axis}")));
            }
        }
        record.count("failures", self.failures);
    }

    fn failures(&self) -> Option<(u64, &'static str)> {
        (self.failures > 0).then_some((self.failures, self.problem))
    }
}
