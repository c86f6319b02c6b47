//! What the engine asks of a method for one tensor.

use super::gradient::GradSlice;
use super::group_state::GroupState;
use super::shared_state::SharedState;
use super::stage::{Stage, TensorSums};
use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters, OptionValue, Options};
use crate::kernel::{Isa, Sums};
use crate::numeric::Element;
use crate::state::{Lookup, Record, StateBytes, Storage};
use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;

/// A tensor and its step, as rules see them.
#[derive(Clone, Copy, Debug)]
pub struct TensorStep<'s> {
    /// Step number of the parameter, from 1.
    pub t: u64,
    /// Shape of the parameter.
    pub shape: &'s [usize],
    /// Whether a curvature came with the gradient.
    pub curvature: bool,
}

/// Inputs besides the gradients that a step requires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The loss.
    pub loss: bool,
    /// The curvature of the tensor.
    pub curvature: bool,
}

/// One tensor in one pass, without what belongs to the method.
#[derive(Debug)]
pub struct PassInfo<'u, T: Element> {
    /// What to do.
    pub stage: Stage,
    /// Instruction set to compile loops for.
    pub isa: Isa,
    /// How state and parameters are stored.
    pub storage: &'u Storage,
    /// Step number of this parameter, from 1.
    pub t: u64,
    /// A number made of the parameter's name: streams of random numbers are keyed by it.
    pub key: u64,
    /// Shape of the parameter.
    pub shape: &'u [usize],
    /// The parameter, row-major.
    pub data: &'u mut [T],
    /// The gradient.
    pub grad: GradSlice<'u, T>,
    /// The curvature that came with it.
    pub curvature: Option<GradSlice<'u, T>>,
}

/// One tensor in one pass.
#[derive(Debug)]
pub struct TensorPass<'u, T: Element, S, P> {
    /// The tensor.
    pub info: PassInfo<'u, T>,
    /// Coefficients of the step.
    pub prepared: &'u P,
    /// The parameter's state.
    pub state: &'u mut S,
}

/// State of one tensor: what the engine needs to know of it.
pub trait TensorState: Clone + Debug + Send + 'static {
    /// Adds the bytes held, slot by slot.
    fn count(&self, bytes: &mut StateBytes);
    /// Writes the state of a tensor of shape `shape` under the record's keys.
    fn save(&self, shape: &[usize], record: &mut Record<'_>);
}

/// A method that is built from its options, for parameters of any type.
pub trait Method: Clone + Debug + Send + Sync + 'static {
    /// The options.
    type Config: Hyperparameters;
    /// The options.
    fn config(&self) -> &Self::Config;
    /// The method with these options.
    fn new(config: Self::Config) -> Self;
}

/// A method for parameters of element type `T`: names what runs it.
///
/// The engine does not know the types of methods. It is compiled once for each of the three kinds of
/// methods (element by element, block by block, as one vector), and calls a method through a pointer.
/// This trait connects the type that a user names with its kind.
pub trait MethodFor<T: Element>: Method {
    /// What is remembered per group.
    type GroupState: GroupState;
    /// What the engine runs.
    type Engine: TensorMethod<T>;
    /// The method, and the state of a group before its first step, as the engine runs them.
    fn into_engine(self) -> Self::Engine;
}

/// A method as the engine sees it, together with the state of a parameter group.
pub trait TensorMethod<T: Element>: Clone + Debug + Send + Sync + 'static {
    /// What is remembered per tensor.
    type State: TensorState;
    /// What is remembered of several tensors together.
    type Shared: SharedState<Self, T>;
    /// Coefficients of one step; kept from step to step for its memory.
    type Prepared: Debug + Default + Send + Sync;
    /// One independent piece of work: a chunk of a tensor, or a block of a matrix.
    type Unit<'u>: Send
    where
        Self: 'u,
        T: 'u;
    /// Operations per element, roughly, as multiples of an element-wise rule's: what makes threads
    /// worth waking.
    const INTENSITY: usize = 1;

    /// Whether units differ so much in [`TensorMethod::cost`] that the longest have to begin first.
    const UNEVEN: bool = false;

    /// Key of the state within a tensor's record if another method is around this one; empty: the record
    /// itself.
    const PART: &'static str = "";

    /// Name of the method, as in error messages and state dicts.
    fn name(&self) -> &'static str;
    /// Whether training and evaluation happen at different points.
    fn has_eval_mode(&self) -> bool;
    /// The options, as the type that [`Method::Config`] names.
    fn config(&self) -> &dyn Any;
    /// What is remembered of the group, as the type that [`MethodFor::GroupState`] names.
    fn group_state(&self) -> &dyn Any;
    /// Takes over what another method of the same type remembers of the group.
    fn set_group_state(&mut self, scalars: &dyn Any);
    /// Calls `visitor` for every option.
    fn read_options(&self, visitor: &mut dyn FnMut(Hyper<'_>));
    /// A copy whose options are as `change` leaves them.
    ///
    /// # Errors
    /// That of `change`.
    fn changed(&self, change: &mut dyn FnMut(&mut dyn Options) -> Result<()>) -> Result<Self>;
    /// Calls `visitor` for every number of the group that must survive saving and loading.
    fn visit_group_state(&mut self, visitor: &mut dyn FnMut(&'static str, &mut dyn OptionValue));
    /// Checks options that must agree between groups.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter).
    fn check_group(&self, first: &Self) -> Result<()>;
    /// Whether wrappers keep what the rules inside do; runs once, at `build`.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter).
    fn check_composition(&self) -> Result<()>;
    /// Whether state made under these options fits `changed` ones.
    fn keeps_layout(&self, changed: &Self) -> bool;
    /// Names of the slots, which [`Storage`] may give a precision of their own.
    fn slots(&self) -> Vec<&'static str>;
    /// Checks how state is to be stored.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter).
    fn check_storage(&self, storage: &Storage) -> Result<()> {
        storage.check(self.name(), self.slots().into_iter())
    }
    /// Whether the state of the parameter `name` can take another step.
    ///
    /// # Errors
    /// A numerical failure that has repeated too often.
    fn check_state(&self, name: &str, state: &Self::State) -> Result<()> {
        let _ = (name, state);
        Ok(())
    }
    /// The state of a parameter before its first step.
    fn init(&self, shape: &[usize], param: &[T], storage: &Storage) -> Self::State;
    /// Adds the slots that an option switched on after the first step.
    fn extend(&self, state: &mut Self::State, shape: &[usize], param: &[T], storage: &Storage);
    /// A state from a state dict.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the key.
    fn load(&self, shape: &[usize], storage: &Storage, lookup: &Lookup<'_>) -> Result<Self::State>;
    /// Saves the state of a tensor of shape `shape`.
    fn save_state(&self, state: &Self::State, shape: &[usize], record: &mut Record<'_>) {
        state.save(shape, record);
    }
    /// The inputs that step number `t` of a tensor requires.
    fn needs(&self, t: u64) -> Needs;
    /// Whether [`TensorMethod::needs`] can require anything at any step.
    fn has_needs(&self) -> bool;
    /// Whether the method reads the curvature at all.
    fn uses_curvature(&self) -> bool;
    /// The largest magnitude of a gradient that arithmetic and state can take without an overflow; `bf16` if
    /// state has the range of that type.
    fn largest_gradient(&self, bf16: bool) -> T::Compute;
    /// Whether the coefficients of a step differ between tensors of one group and step number.
    fn per_tensor(&self) -> bool;
    /// Runs once per step, before anything else, with the loss if it is known.
    fn begin(&mut self, loss: Option<f64>);
    /// Runs once per step and tensor, before anything is measured.
    fn begin_tensor(&self, step: &TensorStep<'_>, state: &mut Self::State);
    /// Updates the state of a tensor with the sums of a pass; runs once per step.
    fn absorb(
        &self,
        pass: usize,
        measured: &TensorSums,
        step: &TensorStep<'_>,
        state: &mut Self::State,
    );
    /// Adds what a tensor's numbers contribute to the sums of a pass over all tensors.
    fn contribute(&self, pass: usize, state: &Self::State, sums: &mut Sums);
    /// The measuring passes of this group.
    fn passes(&self) -> Range<usize>;
    /// Takes the sums of a pass over all tensors.
    fn combine(&mut self, pass: usize, total: &Sums);
    /// Shows all numbers of the slot `slot` of a tensor of this shape, if there is such a slot, and keeps what
    /// `visitor` changes.
    fn visit_slot(
        state: &mut Self::State,
        slot: &str,
        shape: &[usize],
        visitor: &mut dyn FnMut(&mut [T::Compute]),
    );
    /// Whether the state asks for [`Stage::CollectScales`].
    fn collects_scales(state: &Self::State) -> bool;
    /// Writes the coefficients of a step.
    fn prepare(&self, step: &TensorStep<'_>, state: &Self::State, prepared: &mut Self::Prepared);
    /// Completes the coefficients of a tensor with the sums of a pass.
    fn refine(&self, pass: usize, measured: &TensorSums, prepared: &mut Self::Prepared);
    /// Cuts a tensor into units; sizes depend on the shape alone, never on threads.
    fn split<'u>(
        &'u self,
        job: TensorPass<'u, T, Self::State, Self::Prepared>,
        push: &mut dyn FnMut(Self::Unit<'u>),
    );
    /// Does one piece of work. Cannot fail: whatever can go wrong was checked before.
    fn run(unit: &mut Self::Unit<'_>);
    /// The sums that a unit took.
    fn sums(unit: &Self::Unit<'_>) -> Sums;
    /// Relative cost of a unit.
    fn cost(unit: &Self::Unit<'_>) -> f64 {
        let _ = unit;
        1.0
    }
}
