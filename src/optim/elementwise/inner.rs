//! A rule inside another method: its direction alone, and its slots as plain numbers.

use super::adaptor::{ElementState, split};
use super::rule::{Apply, Elementwise, Rule, Slot, WeightDecay};
use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::kernel::Isa;
use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use crate::optim::method::{GradSlice, GradSource, Job, Stage, TensorMethod};
use crate::state::{SlotInit, SlotKind, Storage};

/// Whether the rule `U` inside the method `C` can work on a gradient in other coordinates.
pub(crate) fn check_embedded<C: Hyperparameters, U: Rule<Scalars = ()>>(inner: &U) -> Result<()> {
    let slots = 0..U::SLOTS.len();
    if let WeightDecay::Coupled(decay) = inner.decay()
        && decay != 0.0
    {
        let expected = "0 unless the inner rule decouples its decay";
        return Err(C::invalid("weight_decay", expected, decay.to_string()));
    }
    let point = |slot: usize| {
        U::SLOTS.get(slot).is_some_and(|slot| slot.kind == SlotKind::Point)
            || inner.slot_init(slot) == SlotInit::Parameter
            || inner.slot_stride(slot) != 1
    };
    let expected = if U::TWO_POINTS || slots.into_iter().any(point) {
        "a rule without points in parameter space"
    } else if !inner.passes().is_empty() {
        "a rule that takes no sums over tensors"
    } else {
        return Ok(());
    };
    Err(C::invalid("inner", expected, U::NAME))
}

impl<U: Rule<Scalars = ()>> Elementwise<U> {
    /// Writes the direction of every element at step `t` into `out`, and the new state into `state`.
    ///
    /// Learning rate and decay are left out, and the rule sees a parameter that is 0 everywhere.
    /// `state` was made for as many elements as `grad` and `out` have. Runs on the calling thread.
    pub fn direction<R: Real>(
        &self,
        t: u64,
        grad: &[R],
        state: &mut ElementState<R>,
        out: &mut [R],
    ) {
        // 0·1 − (−1)·u
        let apply = Apply { lr: -R::one(), coupled: R::zero(), shrink: R::one() };
        let mut prepared = TensorMethod::<R>::prepare(self, t, &());
        prepared.apply = apply;
        out.fill(R::zero());
        let storage = Storage::default();
        let preview = Self::wants_preview(state).then_some(Stage::Preview);
        for stage in preview.into_iter().chain([Stage::Update]) {
            let source = GradSource::Direction(grad);
            let job = Job {
                stage,
                isa: Isa::detect(),
                storage: &storage,
                prepared,
                t,
                key: 0,
                shape: &[],
                data: &mut *out,
                grad: GradSlice { scale: 1.0, bound: f64::INFINITY, source },
                state: &mut *state,
            };
            split(&self.0, job, |mut unit| unit.run());
        }
    }
}

impl<R: Real> ElementState<R> {
    /// Whether slot number `slot` has no memory.
    pub fn lacks_slot(&self, slot: usize) -> bool {
        self.slots.get(slot).is_none_or(Option::is_none)
    }

    /// Hands every slot to `change` as numbers, whatever it is stored as; the state is that of
    /// `numel` elements.
    pub fn change_slots(&mut self, numel: usize, mut change: impl FnMut(&Slot, &mut [R])) {
        let isa = Isa::detect();
        for (slot, buffer) in self.layout.iter().zip(&mut self.slots) {
            let Some(buffer) = buffer else { continue };
            if let Some(values) = buffer.cursor(false).take(numel).in_place() {
                change(slot, values);
                continue;
            }
            with_scratch::<R, _>(numel, |values| {
                let chunk = buffer.cursor(false).take(numel);
                chunk.load(isa, 0, values);
                change(slot, values);
                // scales of rows and columns are made of what is about to be stored
                chunk.preview(isa, 0, values);
                buffer.cursor(true).take(numel).store(isa, 0, values);
            });
        }
    }
}
