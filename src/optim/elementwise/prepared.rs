//! What one step of one tensor needs of its rule.

use super::erased::ErasedRule;
use super::kernel::ElementKernel;
use super::rule::{Apply, Factoring, WeightDecay};
use crate::kernel::sweep::MAX_SLOTS;
use crate::numeric::Real;
use crate::optim::method::{TensorStep, TensorSums};
use crate::state::{Input, SlotKind};

/// Coefficients of one step of one tensor.
#[derive(Debug)]
pub struct Prepared<R: Real> {
    /// `None` before the first step.
    pub(super) kernel: Option<Box<dyn ElementKernel<R>>>,
    pub(super) apply: Apply<R>,
    pub(super) maximize: bool,
    pub(super) measure_stride: usize,
    /// Which slots the options use, and which of them are inputs of the step.
    pub(super) used: [bool; MAX_SLOTS],
    pub(super) inputs: [Option<Input>; MAX_SLOTS],
    /// How slots that are means over rows and columns are averaged.
    pub(super) factoring: [Option<Factoring>; MAX_SLOTS],
    /// Key of random numbers.
    pub(super) seed: u64,
    /// Whether rows without a gradient are left alone.
    pub(super) lazy: bool,
}

impl<R: Real> Default for Prepared<R> {
    fn default() -> Self {
        let apply = Apply { lr: R::zero(), coupled: R::zero(), shrink: R::one() };
        Self {
            kernel: None,
            apply,
            maximize: false,
            measure_stride: 1,
            used: [false; MAX_SLOTS],
            inputs: [None; MAX_SLOTS],
            factoring: [None; MAX_SLOTS],
            seed: 0,
            lazy: false,
        }
    }
}

impl<R: Real> Prepared<R> {
    /// Those of one step, computed in `f64`.
    pub(in crate::optim) fn update(
        &mut self,
        rule: &dyn ErasedRule<R>,
        step: &TensorStep<'_>,
        numbers: &[f64],
    ) {
        rule.prepare(step, numbers, &mut self.kernel);
        let lr = rule.step_size(step.t);
        let (lr, coupled, shrink) = match rule.decay() {
            WeightDecay::None => (lr, 0.0, 1.0),
            WeightDecay::Coupled(decay) => (lr, decay, 1.0),
            WeightDecay::Decoupled(decay) => (lr, 0.0, 1.0 - lr * decay),
            // what comes after the update shrinks the update, too
            WeightDecay::DecoupledAfter(decay) => {
                let shrink = 1.0 - lr * decay;
                (lr * shrink, 0.0, shrink)
            }
            WeightDecay::Independent(decay) => (lr, 0.0, 1.0 - decay),
            WeightDecay::Corrected { decay, peak_lr } => (lr, 0.0, 1.0 - lr * decay * lr / peak_lr),
        };
        self.apply = Apply { lr: R::of(lr), coupled: R::of(coupled), shrink: R::of(shrink) };
        self.maximize = rule.maximize();
        self.measure_stride = rule.measure_stride().max(1);
        self.used = std::array::from_fn(|slot| rule.uses_slot(slot));
        self.inputs = std::array::from_fn(|slot| match rule.layout().get(slot)?.kind {
            SlotKind::Input(input) => Some(input),
            _ => None,
        });
        self.factoring = std::array::from_fn(|slot| {
            rule.layout().get(slot)?.factors.map(|_| rule.factoring(slot, step.t))
        });
        self.seed = rule.seed();
        self.lazy = rule.lazy() && coupled == 0.0 && shrink == 1.0;
    }

    /// How directions become parameters, with the learning rate times `factor`.
    pub(in crate::optim) fn apply_with(&self, factor: f64) -> Apply<R> {
        let mut apply = self.apply;
        apply.scale_lr(factor);
        apply
    }

    /// Whether the rule ascends.
    pub(in crate::optim) fn maximizes(&self) -> bool {
        self.maximize
    }

    /// Folds the sums of a pass over the tensor in.
    pub(in crate::optim) fn refine(
        &mut self,
        rule: &dyn ErasedRule<R>,
        pass: usize,
        measured: &TensorSums,
    ) {
        if let Some(kernel) = &mut self.kernel {
            rule.refine(pass, measured, &mut **kernel);
        }
    }
}
