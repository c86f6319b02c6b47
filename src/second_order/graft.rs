//! The length of a preconditioned direction: that of a simpler method.

use crate::error::Result;
use crate::kernel::scratch::with_scratch;
use crate::kernel::squares::sum_of_squares;
use crate::kernel::{Isa, Kernel};
use crate::numeric::Real;
use crate::numeric::range::flushed;
use crate::optim::BlockStep;
use crate::state::slot::{SlotBuffer, SlotShape};
use crate::state::{Lookup, Record, SlotInit, SlotKind, StateBytes, Storage};
use ndarray::{ArrayViewD, ArrayViewMutD};

/// The method whose step length a preconditioned direction takes over.
///
/// ```text
/// D ← D·‖A‖/(‖D‖ + tiny)        A: the direction of that method, made of the filtered gradient Ḡ
/// ```
/// The preconditioner then chooses the direction, and a method whose learning rate is known chooses the
/// length. Until preconditioning starts, the direction is A itself.
///
/// Source: R. Anil, V. Gupta, T. Koren, K. Regan, Y. Singer, "Scalable Second Order Optimization for
/// Deep Learning", 2020; N. Agarwal, R. Anil, E. Hazan, T. Koren, C. Zhang, "Disentangling Adaptive
/// Gradient Methods from Learning Rates", 2020.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(remote = "Self"))]
#[non_exhaustive]
pub enum Graft {
    /// None: D keeps its own length.
    None,
    /// Gradient descent: A = Ḡ.
    #[default]
    Gradient,
    /// Descent by signs: A = sign(Ḡ), of length √(number of elements).
    Sign,
    /// A diagonal method: A = Ḡ/(√v + ε).
    Moment(GraftMoment),
}
crate::config_file::presets!(Graft, [ADAGRAD, RMSPROP, ADAM]);

impl Graft {
    /// Adagrad: v is the sum of squares, ε = 1e-10.
    pub const ADAGRAD: Self = Self::Moment(GraftMoment {
        beta: 1.0,
        bias_correction: false,
        eps: 1e-10,
        normalized: false,
    });
    /// RMSprop: β = 0.99, ε = 1e-8.
    pub const RMSPROP: Self = Self::Moment(GraftMoment {
        beta: 0.99,
        bias_correction: false,
        eps: 1e-8,
        normalized: false,
    });
    /// Adam without a first moment of its own: β = 0.999, corrected, ε = 1e-8.
    pub const ADAM: Self = Self::Moment(GraftMoment {
        beta: 0.999,
        bias_correction: true,
        eps: 1e-8,
        normalized: false,
    });

    /// The moment, if there is one.
    pub(super) fn moment(&self) -> Option<&GraftMoment> {
        match self {
            Self::Moment(moment) => Some(moment),
            _ => None,
        }
    }
}

/// The second moment of a diagonal method.
///
/// ```text
/// v ← β·v + (1 − β)·G²           β = 1: v ← v + G²
/// A = Ḡ/(√(v/(1 − βᵗ)) + ε)      without bias correction: √v
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, remote = "Self"))]
pub struct GraftMoment {
    /// Decay rate `β` in `[0, 1]`; with 1 v is a sum.
    pub beta: f64,
    /// Whether the start at zero is corrected for; not for sums.
    pub bias_correction: bool,
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// Divide G and Ḡ by ‖G‖ of the whole tensor first.
    pub normalized: bool,
}
crate::config_file::named_fields!(GraftMoment);

/// Name of the second moment's slot.
pub(super) const SLOT: &str = "graft_moment";

/// What grafting remembers of one block.
#[derive(Clone, Debug)]
pub(super) struct GraftState<R> {
    moment: Option<SlotBuffer<R>>,
}

fn slot(shape: &[usize]) -> SlotShape<'_> {
    let (kind, init) = (SlotKind::Unsigned, SlotInit::Value(0.0));
    SlotShape { name: SLOT, kind, shape, stride: 1, init, factors: None }
}

impl<R: Real> GraftState<R> {
    pub fn new(graft: &Graft, shape: &[usize], storage: &Storage) -> Self {
        let buffer = |_: &GraftMoment| SlotBuffer::new::<R>(&slot(shape), &[], storage);
        Self { moment: graft.moment().map(buffer) }
    }

    pub fn load(
        graft: &Graft,
        shape: &[usize],
        storage: &Storage,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        let Some(_) = graft.moment() else { return Ok(Self { moment: None }) };
        let buffer = SlotBuffer::load(&slot(shape), storage, lookup)?;
        let buffer = buffer.ok_or_else(|| lookup.problem(SLOT, "is missing"))?;
        Ok(Self { moment: Some(buffer) })
    }

    pub fn count(&self, bytes: &mut StateBytes) {
        if let Some(moment) = &self.moment {
            bytes.add(SLOT, moment.bytes());
        }
    }

    pub fn save(&self, shape: &[usize], record: &mut Record<'_>) {
        if let Some(moment) = &self.moment {
            moment.save(SLOT, shape, record);
        }
    }

    /// Absorbs the gradient, and returns ‖A‖²; if `replace`, A takes the place of the filtered gradient.
    pub fn step(
        &mut self,
        graft: &Graft,
        step: &BlockStep<'_, R>,
        filtered: &mut ArrayViewMutD<'_, R>,
        replace: bool,
    ) -> f64 {
        with_scratch::<R, _>(filtered.len(), |direction| {
            copy(filtered.view(), direction);
            match graft {
                Graft::None | Graft::Gradient => {}
                Graft::Sign => direction.iter_mut().for_each(|a| {
                    *a = if *a == R::zero() { *a } else { a.signum() };
                }),
                Graft::Moment(moment) => self.divide(moment, step, direction),
            }
            if replace {
                filtered.iter_mut().zip(&*direction).for_each(|(x, &a)| *x = a);
            }
            sum_of_squares(direction)
        })
    }

    /// Ḡ ← Ḡ/(√v + ε) for the new second moment.
    fn divide(&mut self, moment: &GraftMoment, step: &BlockStep<'_, R>, direction: &mut [R]) {
        let GraftMoment { beta, bias_correction, eps, normalized } = *moment;
        let (Some(v), Some(g)) = (&mut self.moment, step.gradient.as_slice()) else { return };
        // of a zero gradient every part is zero, whatever the divisor
        let scale = if normalized { 1.0 / (step.gradient_norm + 1e-16) } else { 1.0 };
        let new = if beta == 1.0 { 1.0 } else { 1.0 - beta };
        let correction = if bias_correction && beta < 1.0 {
            1.0 / (1.0 - beta.powf(step.t as f64)).sqrt()
        } else {
            1.0
        };
        let (scale, beta, new) = (R::of(scale), R::of(beta), R::of(new));
        let (correction, eps) = (R::of(correction), R::of(eps));
        let isa = Isa::detect();
        v.rewrite(isa, g.len(), |start, v| {
            let g = g.get(start..).unwrap_or_default();
            isa.run(Absorb { v, g, scale, beta, new });
        });
        v.read(isa, g.len(), |start, v| {
            let a = direction.get_mut(start..).unwrap_or_default();
            isa.run(Divide { a, v, scale, correction, eps });
        });
    }
}

fn copy<R: Real>(from: ArrayViewD<'_, R>, to: &mut [R]) {
    match from.as_slice() {
        Some(slice) => to.copy_from_slice(slice),
        // a block of a larger tensor has its rows apart
        None => to.iter_mut().zip(&from).for_each(|(to, &x)| *to = x),
    }
}

/// `v ← β·v + new·(scale·g)²`.
struct Absorb<'a, R> {
    v: &'a mut [R],
    g: &'a [R],
    scale: R,
    beta: R,
    new: R,
}

impl<R: Real> Kernel for Absorb<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (v, &g) in self.v.iter_mut().zip(self.g) {
            let g = self.scale * g;
            *v = flushed(self.beta * *v + self.new * g * g);
        }
    }
}

/// `a ← scale·a/(√v·correction + ε)`.
struct Divide<'a, R> {
    a: &'a mut [R],
    v: &'a [R],
    scale: R,
    correction: R,
    eps: R,
}

impl<R: Real> Kernel for Divide<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (a, &v) in self.a.iter_mut().zip(self.v) {
            let divisor = v.sqrt() * self.correction + self.eps;
            // without a stabiliser nothing over nothing is nothing
            *a = if *a == R::zero() { *a } else { self.scale * *a / divisor };
        }
    }
}
