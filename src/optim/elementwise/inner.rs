//! A rule inside another method: its direction alone, and its slots as plain numbers.

use super::adaptor::split;
use super::erased::{ErasedRule, InGroup};
use super::own_update::{reads_parameter, updates_itself};
use super::prepared::Prepared;
use super::rule::{Apply, Elementwise, Rule, Slot, WeightDecay};
use super::state::ElementState;
use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::kernel::Isa;
use crate::kernel::scratch::{with_kept, with_scratch};
use crate::numeric::Real;
use crate::optim::method::{GradSlice, GradSource, PassInfo, Stage, TensorPass, TensorStep};
use crate::state::{Lookup, Rounding, SlotInit, SlotKind, Storage};

/// Whether the rule `U` inside the method `C` can work on a gradient in other coordinates.
pub(crate) fn check_inner<C: Hyperparameters, U: Rule<GroupState = ()>>(inner: &U) -> Result<()> {
    let slots = 0..U::SLOTS.len();
    if let WeightDecay::Coupled(decay) = inner.decay()
        && decay != 0.0
    {
        let expected = "0 unless the inner rule decouples its decay";
        return Err(C::invalid("weight_decay", expected, decay.to_string()));
    }
    let point = |slot: usize| {
        U::SLOTS.get(slot).is_some_and(|slot| slot.kind == SlotKind::Iterate)
            || inner.slot_init(slot) == SlotInit::Parameter
            || inner.slot_stride(slot) != 1
    };
    let expected = if U::HAS_EVAL_MODE || slots.into_iter().any(point) {
        "a rule without points in parameter space"
    } else if !inner.passes().is_empty() {
        "a rule that takes no sums over tensors"
    } else if U::PER_TENSOR {
        "a rule without numbers of whole tensors"
    } else if U::SLOTS.iter().any(|slot| slot.kind.is_input()) {
        "a rule that needs nothing but gradients"
    } else if updates_itself(inner) {
        "a rule whose step is its direction times the learning rate"
    } else if reads_parameter(inner) {
        "a rule whose direction does not depend on the parameter"
    } else {
        return Ok(());
    };
    Err(C::invalid("inner", expected, U::NAME))
}

/// The rule inside another method. The state of a tensor is made, loaded and extended as in an
/// optimizer of its own, but that rounding keeps nothing: what the rule writes is a scratch buffer.
impl<U: Rule<GroupState = ()>> Elementwise<U> {
    fn in_group(&self) -> InGroup<U> {
        InGroup::new(self.0.clone())
    }

    /// The state of a tensor before its first step.
    pub fn init<R: Real>(&self, shape: &[usize], storage: &Storage) -> ElementState<R> {
        ElementState::new(&self.in_group(), shape, &[], &unrounded(storage))
    }

    /// A state from a state dict.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the key.
    pub fn load<R: Real>(
        &self,
        shape: &[usize],
        storage: &Storage,
        lookup: &Lookup<'_>,
    ) -> Result<ElementState<R>> {
        ElementState::load(&self.in_group(), shape, &unrounded(storage), lookup)
    }

    /// Adds the slots that an option switched on after the first step.
    pub fn extend<R: Real>(&self, state: &mut ElementState<R>, shape: &[usize], storage: &Storage) {
        let missing = |slot: usize| state.lacks_slot(slot) && self.0.uses_slot(slot);
        if (0..U::SLOTS.len()).any(missing) {
            state.extend(&self.in_group(), shape, &[], &unrounded(storage));
        }
    }

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
        direction(&self.in_group(), t, grad, state, out);
    }
}

/// The storage of slots alone.
fn unrounded(storage: &Storage) -> Storage {
    Storage { rounding: Rounding::Nearest, ..storage.clone() }
}

fn direction<R: Real>(
    rule: &dyn ErasedRule<R>,
    t: u64,
    grad: &[R],
    state: &mut ElementState<R>,
    out: &mut [R],
) {
    // kept from block to block and from step to step, for the memory of its coefficients
    with_kept(|prepared: &mut Prepared<R>| {
        prepared.update(rule, &TensorStep { t, shape: &[], curvature: false }, &state.numbers);
        // 0·1 − (−1)·u
        let apply = Apply { lr: -R::one(), coupled: R::zero(), shrink: R::one() };
        out.fill(R::zero());
        let storage = Storage::default();
        let preview = state.collects_scales().then_some(Stage::CollectScales);
        for stage in preview.into_iter().chain([Stage::Update]) {
            let info = PassInfo {
                stage,
                isa: Isa::detect(),
                storage: &storage,
                t,
                key: 0,
                shape: &[],
                data: &mut *out,
                grad: GradSlice::plain(GradSource::Direction(grad)),
                curvature: None,
            };
            let job = TensorPass { info, prepared: &*prepared, state: &mut *state };
            split(job, apply, &mut |mut unit| unit.run());
        }
    });
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
