//! A rule behind a pointer: what the engine knows of it.

use super::kernel::{ElementKernel, RuleKernel};
use super::rule::{Factoring, Rule, Slot, WeightDecay};
use crate::error::Result;
use crate::hyper::{Hyper, OptionValue, Options};
use crate::kernel::Sums;
use crate::kernel::sweep::{MAX_SLOTS, Slots};
use crate::numeric::Real;
use crate::optim::method::{GroupState, Needs, TensorStep, TensorSums};
use crate::state::SlotInit;
use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;

/// The methods of [`Rule`], for arithmetic in `R`, with the state of the group at hand.
pub trait ErasedRule<R: Real>: Any + Debug + Send + Sync {
    /// A copy.
    fn boxed(&self) -> Box<dyn ErasedRule<R>>;
    /// The rule itself.
    fn options(&mut self) -> &mut dyn Options;
    /// Calls `visitor` for every option.
    fn read_options(&self, visitor: &mut dyn FnMut(Hyper<'_>));
    /// The rule itself.
    fn config(&self) -> &dyn Any;
    /// Its [`Rule::GroupState`].
    fn group_state(&self) -> &dyn Any;
    /// Takes over a group state of the same type.
    fn set_group_state(&mut self, state: &dyn Any);
    /// Calls `visitor` for every number that must survive saving and loading.
    fn visit_group_state(&mut self, visitor: &mut dyn FnMut(&'static str, &mut dyn OptionValue));
    /// Name of the rule.
    fn name(&self) -> &'static str;
    /// [`Rule::SLOTS`].
    fn layout(&self) -> &'static [Slot];
    /// [`Rule::HAS_EVAL_MODE`].
    fn has_eval_mode(&self) -> bool;
    /// [`Rule::check_composition`].
    ///
    /// # Errors
    /// Those of the rule.
    fn check_composition(&self) -> Result<()>;
    /// [`Rule::check_group`].
    ///
    /// # Errors
    /// Those of the rule.
    fn check_group(&self, first: &dyn ErasedRule<R>) -> Result<()>;
    /// [`Rule::decay`].
    fn decay(&self) -> WeightDecay;
    /// [`Rule::maximize`].
    fn maximize(&self) -> bool;
    /// [`Rule::uses_slot`]; true for slots that are not optional.
    fn uses_slot(&self, slot: usize) -> bool;
    /// [`Rule::slot_init`].
    fn slot_init(&self, slot: usize) -> SlotInit;
    /// [`Rule::slot_stride`].
    fn slot_stride(&self, slot: usize) -> usize;
    /// [`Rule::TENSOR_SLOTS`].
    fn tensor_slots(&self) -> &'static [(&'static str, f64)];
    /// [`Rule::GRADIENT_POWER`].
    fn gradient_power(&self) -> u32;
    /// [`Rule::PER_TENSOR`].
    fn per_tensor(&self) -> bool;
    /// [`Rule::needs_loss`] and [`Rule::needs_curvature`].
    fn needs(&self, t: u64) -> Needs;
    /// [`Rule::lazy`].
    fn lazy(&self) -> bool;
    /// [`Rule::seed`].
    fn seed(&self) -> u64;
    /// [`Rule::begin`].
    fn begin(&mut self, loss: Option<f64>);
    /// [`Rule::begin_tensor`].
    fn begin_tensor(&self, step: &TensorStep<'_>, numbers: &mut [f64]);
    /// [`Rule::absorb`].
    fn absorb(
        &self,
        pass: usize,
        measured: &TensorSums,
        step: &TensorStep<'_>,
        numbers: &mut [f64],
    );
    /// [`Rule::contribute`].
    fn contribute(&self, pass: usize, numbers: &[f64], sums: &mut Sums);
    /// [`Rule::passes`].
    fn passes(&self) -> Range<usize>;
    /// [`Rule::factoring`].
    fn factoring(&self, slot: usize, t: u64) -> Factoring;
    /// [`Rule::measure_stride`].
    fn measure_stride(&self) -> usize;
    /// [`Rule::combine`].
    fn combine(&mut self, pass: usize, total: &Sums);
    /// [`Rule::step_size`].
    fn step_size(&self, t: u64) -> f64;
    /// [`Rule::coefficients`] and [`Rule::tensor_coefficients`], into the kernel that is there if it is
    /// one of this rule.
    fn prepare(
        &self,
        step: &TensorStep<'_>,
        numbers: &[f64],
        kernel: &mut Option<Box<dyn ElementKernel<R>>>,
    );
    /// [`Rule::refine`] of a kernel of this rule.
    fn refine(&self, pass: usize, measured: &TensorSums, kernel: &mut dyn ElementKernel<R>);
}

/// A rule and what it remembers of its group.
#[derive(Clone, Debug)]
pub(super) struct InGroup<U: Rule> {
    rule: U,
    scalars: U::GroupState,
}

impl<U: Rule> InGroup<U> {
    pub fn new(rule: U) -> Self {
        const {
            // every slot has a name, and the kernel has room for all of them
            assert!(U::SLOTS.len() == <U::State<f32> as Slots<f32>>::N);
            assert!(U::SLOTS.len() <= MAX_SLOTS, "a rule has at most `MAX_SLOTS` slots");
            assert!(
                are_free(U::TENSOR_SLOTS),
                "`step`, `group` and `shape` are entries of every tensor"
            );
        }
        Self { rule, scalars: U::GroupState::default() }
    }
}

/// Whether no name is one that state dicts have for every tensor.
const fn are_free(numbers: &[(&str, f64)]) -> bool {
    let mut rest = numbers;
    while let [(name, _), others @ ..] = rest {
        if matches!(name.as_bytes(), b"step" | b"group" | b"shape") {
            return false;
        }
        rest = others;
    }
    true
}

impl<U: Rule, R: Real> ErasedRule<R> for InGroup<U> {
    fn boxed(&self) -> Box<dyn ErasedRule<R>> {
        Box::new(self.clone())
    }
    fn options(&mut self) -> &mut dyn Options {
        &mut self.rule
    }
    fn read_options(&self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.rule.clone().visit_options(visitor);
    }
    fn config(&self) -> &dyn Any {
        &self.rule
    }
    fn group_state(&self) -> &dyn Any {
        &self.scalars
    }
    fn set_group_state(&mut self, scalars: &dyn Any) {
        if let Some(scalars) = scalars.downcast_ref::<U::GroupState>() {
            self.scalars.clone_from(scalars);
        }
    }
    fn visit_group_state(&mut self, visitor: &mut dyn FnMut(&'static str, &mut dyn OptionValue)) {
        self.scalars.visit(visitor);
    }
    fn name(&self) -> &'static str {
        U::NAME
    }
    fn layout(&self) -> &'static [Slot] {
        U::SLOTS
    }
    fn has_eval_mode(&self) -> bool {
        U::HAS_EVAL_MODE
    }
    fn check_composition(&self) -> Result<()> {
        self.rule.check_composition()
    }
    fn check_group(&self, first: &dyn ErasedRule<R>) -> Result<()> {
        // all groups of an optimizer have rules of one type
        first.config().downcast_ref::<U>().map_or(Ok(()), |first| self.rule.check_group(first))
    }
    fn decay(&self) -> WeightDecay {
        self.rule.decay()
    }
    fn maximize(&self) -> bool {
        self.rule.maximize()
    }
    fn uses_slot(&self, slot: usize) -> bool {
        U::SLOTS.get(slot).is_some_and(|slot| !slot.optional) || self.rule.uses_slot(slot)
    }
    fn slot_init(&self, slot: usize) -> SlotInit {
        self.rule.slot_init(slot)
    }
    fn slot_stride(&self, slot: usize) -> usize {
        self.rule.slot_stride(slot)
    }
    fn tensor_slots(&self) -> &'static [(&'static str, f64)] {
        U::TENSOR_SLOTS
    }
    fn gradient_power(&self) -> u32 {
        U::GRADIENT_POWER
    }

    fn per_tensor(&self) -> bool {
        U::PER_TENSOR
    }
    fn needs(&self, t: u64) -> Needs {
        Needs { loss: self.rule.needs_loss(), curvature: self.rule.needs_curvature(t) }
    }
    fn lazy(&self) -> bool {
        self.rule.lazy()
    }
    fn seed(&self) -> u64 {
        self.rule.seed()
    }
    fn begin(&mut self, loss: Option<f64>) {
        self.rule.begin(loss, &mut self.scalars);
    }
    fn begin_tensor(&self, step: &TensorStep<'_>, numbers: &mut [f64]) {
        self.rule.begin_tensor(step, numbers);
    }
    fn absorb(
        &self,
        pass: usize,
        measured: &TensorSums,
        step: &TensorStep<'_>,
        numbers: &mut [f64],
    ) {
        // a method around the rule may run passes that are not the rule's
        if self.rule.passes().contains(&pass) {
            self.rule.absorb(pass, measured, step, numbers);
        }
    }
    fn contribute(&self, pass: usize, numbers: &[f64], sums: &mut Sums) {
        self.rule.contribute(pass, numbers, sums);
    }
    fn passes(&self) -> Range<usize> {
        self.rule.passes()
    }
    fn factoring(&self, slot: usize, t: u64) -> Factoring {
        self.rule.factoring::<R>(slot, t)
    }
    fn measure_stride(&self) -> usize {
        self.rule.measure_stride()
    }
    fn combine(&mut self, pass: usize, total: &Sums) {
        if self.rule.passes().contains(&pass) {
            self.rule.combine(pass, total, &mut self.scalars);
        }
    }
    fn step_size(&self, t: u64) -> f64 {
        self.rule.step_size(t, &self.scalars)
    }
    fn prepare(
        &self,
        step: &TensorStep<'_>,
        numbers: &[f64],
        kernel: &mut Option<Box<dyn ElementKernel<R>>>,
    ) {
        let mut coefficients = self.rule.coefficients(step.t, &self.scalars);
        if U::PER_TENSOR {
            self.rule.tensor_coefficients(step, numbers, &mut coefficients);
        }
        let new = RuleKernel::<U, R>(coefficients);
        let old = kernel.as_deref_mut().and_then(|kernel| own::<U, R>(kernel));
        match old {
            Some(old) => *old = new,
            None => *kernel = Some(Box::new(new)),
        }
    }
    fn refine(&self, pass: usize, measured: &TensorSums, kernel: &mut dyn ElementKernel<R>) {
        let own = own::<U, R>(kernel).filter(|_| self.rule.passes().contains(&pass));
        if let Some(kernel) = own {
            self.rule.refine(pass, measured, &mut kernel.0);
        }
    }
}

fn own<U: Rule, R: Real>(kernel: &mut dyn ElementKernel<R>) -> Option<&mut RuleKernel<U, R>> {
    let kernel: &mut dyn Any = kernel;
    kernel.downcast_mut()
}

/// A rule of any type, with the state of its group: the element-wise method of the engine.
#[derive(Debug)]
pub struct AnyRule<R: Real>(Box<dyn ErasedRule<R>>);

impl<R: Real> Clone for AnyRule<R> {
    fn clone(&self) -> Self {
        Self(self.0.boxed())
    }
}

impl<R: Real> AnyRule<R> {
    /// A rule in a group that has made no step.
    pub fn new<U: Rule>(rule: U) -> Self {
        Self(Box::new(InGroup::new(rule)))
    }

    /// What is behind the pointer.
    pub fn get(&self) -> &dyn ErasedRule<R> {
        &*self.0
    }

    /// What is behind the pointer.
    pub fn get_mut(&mut self) -> &mut dyn ErasedRule<R> {
        &mut *self.0
    }
}
