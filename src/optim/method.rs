//! The seam between the engine and the methods: what an optimizer does to one tensor.

use super::joint::Joint;
use super::rule::{Measured, Mode};
use super::scalars::Scalars;
use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::kernel::{Isa, Sums};
use crate::numeric::{Element, Real};
use crate::params::{Generate, RowGradient};
use crate::state::{Lookup, Record, StateBytes, Storage};
use std::fmt::Debug;
use std::ops::Range;

/// What one round of units does to the tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Takes sums. Rules write nothing; matrix methods prepare their direction.
    Measure(usize),
    /// Looks at the new state before it is written: rank-1 scales need the maxima of whole rows.
    Preview,
    /// Writes parameters and state.
    Update,
    /// Moves the parameters to the other point.
    Switch(Mode),
}

/// A gradient as methods see it: row-major, whatever the user's layout.
#[derive(Clone, Copy, Debug)]
pub struct GradSlice<'u, T: Element> {
    /// Factor on every element.
    pub scale: f64,
    /// Elements are clamped to `[-bound, bound]` after scaling; infinite for no clamp.
    pub bound: f64,
    /// The elements.
    pub source: GradSource<'u, T>,
}

/// Where the elements of a gradient come from.
#[derive(Clone, Copy, Debug)]
pub enum GradSource<'u, T: Element> {
    /// A row-major slice.
    Dense(&'u [T]),
    /// Some rows; the others are zero.
    Rows(&'u RowGradient<T>),
    /// Produced on demand.
    Generated(&'u dyn Generate<T>),
    /// A direction that takes the place of the gradient, in the arithmetic type.
    Direction(&'u [T::Compute]),
    /// A direction that is computed on demand; the tensor begins at this element of it.
    Computed(&'u dyn Direction<T::Compute>, usize),
}

/// A vector that is computed piece by piece where it is used, and so needs no memory.
pub trait Direction<R>: Debug + Sync {
    /// Writes the elements `offset .. offset + out.len()`.
    fn compute(&self, offset: usize, out: &mut [R]);
}

impl<T: Element> GradSlice<'_, T> {
    /// The unscaled elements `offset .. offset + len`, if they can be read in place.
    #[inline]
    pub fn in_place(&self, offset: usize, len: usize) -> Option<&[T::Compute]> {
        match self.source {
            GradSource::Dense(g) if self.bound == f64::INFINITY => {
                T::as_compute(g)?.get(offset..offset + len)
            }
            GradSource::Direction(u) if self.bound == f64::INFINITY => u.get(offset..offset + len),
            _ => None,
        }
    }

    /// Writes the elements `offset .. offset + out.len()`, scaled and clamped.
    pub fn load(&self, offset: usize, out: &mut [T::Compute]) {
        match self.source {
            GradSource::Dense(g) => {
                for (x, g) in out.iter_mut().zip(g.get(offset..).unwrap_or_default()) {
                    *x = g.load();
                }
            }
            GradSource::Direction(u) => {
                for (x, &u) in out.iter_mut().zip(u.get(offset..).unwrap_or_default()) {
                    *x = u;
                }
            }
            GradSource::Computed(direction, base) => direction.compute(base + offset, out),
            GradSource::Rows(rows) => {
                out.fill(T::Compute::of(0.0));
                rows.scatter(offset, out.len(), |i, g| {
                    if let Some(x) = out.get_mut(i) {
                        *x += g.load();
                    }
                });
            }
            GradSource::Generated(generator) => match T::from_compute_mut(out) {
                Some(out) => generator.fill(offset, out),
                None => {
                    let mut block = [T::default(); 256];
                    for (part, xs) in out.chunks_mut(block.len()).enumerate() {
                        let block = block.get_mut(..xs.len()).unwrap_or_default();
                        generator.fill(offset + part * 256, block);
                        xs.iter_mut().zip(block).for_each(|(x, g)| *x = g.load());
                    }
                }
            },
        }
        if self.scale == 1.0 && self.bound == f64::INFINITY {
            return;
        }
        let (scale, bound) = (T::Compute::of(self.scale), T::Compute::of(self.bound));
        for x in out {
            let scaled = *x * scale;
            // comparisons keep a NaN as it is
            *x = if scaled > bound {
                bound
            } else if scaled < -bound {
                -bound
            } else {
                scaled
            };
        }
    }
}

/// One tensor in one round of units.
#[derive(Debug)]
pub struct Job<'u, T: Element, S, P> {
    /// What to do.
    pub stage: Stage,
    /// Instruction set to compile loops for.
    pub isa: Isa,
    /// How state and parameters are stored.
    pub storage: &'u Storage,
    /// Scalars of the step.
    pub prepared: P,
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
    /// The parameter's state.
    pub state: &'u mut S,
}

/// State of one tensor: what the engine needs to know of it.
pub trait TensorState: Debug + Send + 'static {
    /// Adds the bytes held, slot by slot.
    fn count(&self, bytes: &mut StateBytes);
    /// Writes the state of a tensor of shape `shape` under the record's keys.
    fn save(&self, shape: &[usize], record: &mut Record<'_>);
}

/// A method that is made of its options, whatever the type of the parameters.
pub trait Configured: Clone + Debug + Send + Sync + 'static {
    /// The options.
    type Config: Hyperparameters;
    /// The options.
    fn config(&self) -> &Self::Config;
    /// The method with these options.
    fn new(config: Self::Config) -> Self;
}

/// What an optimizer does to one tensor.
///
/// [`Elementwise`](super::Elementwise) makes one of every [`Rule`](super::Rule),
/// [`Blocked`](super::Blocked) of every [`MatrixMethod`](super::MatrixMethod).
pub trait TensorMethod<T: Element>: Configured {
    /// What is remembered per tensor.
    type State: TensorState;
    /// What is remembered per group.
    type Scalars: Scalars;
    /// What is remembered of several tensors together.
    type Joint: Joint<Self, T>;
    /// Scalars of one step.
    type Prepared: Copy + Debug + Send + Sync;
    /// One independent piece of work: a chunk of a tensor, or a block of a matrix.
    type Unit<'u>: Send
    where
        Self: 'u,
        T: 'u;
    /// Whether training and evaluation happen at different points.
    const TWO_POINTS: bool;
    /// Operations per element, roughly, as multiples of an element-wise rule's: what makes threads
    /// worth waking.
    const INTENSITY: usize = 1;

    /// Whether units differ so much in [`TensorMethod::cost`] that the dearest have to begin first.
    const UNEVEN: bool = false;

    /// Checks options that must agree between groups.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter).
    fn check_group(&self, first: &Self) -> Result<()>;
    /// Whether state made under these options fits `changed` ones.
    fn keeps_layout(&self, changed: &Self) -> bool;
    /// Names of the slots, which [`Storage`] may give a precision of their own.
    fn slots(&self) -> Vec<&'static str>;
    /// Checks how state is to be stored.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter).
    fn check_storage(&self, storage: &Storage) -> Result<()> {
        storage.check(Self::Config::NAME, self.slots().into_iter())
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
    /// Makes room for slots that an option switched on after the first step.
    fn extend(&self, state: &mut Self::State, shape: &[usize], param: &[T], storage: &Storage);
    /// A state from a state dict.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the key.
    fn load(&self, shape: &[usize], storage: &Storage, lookup: &Lookup<'_>) -> Result<Self::State>;
    /// Runs once per step, before anything else.
    fn begin(&self, scalars: &mut Self::Scalars);
    /// The measuring passes of this group.
    fn passes(&self) -> Range<usize>;
    /// Takes the sums of a pass over all tensors.
    fn combine(&self, pass: usize, total: &Sums, scalars: &mut Self::Scalars);
    /// Whether the state asks for [`Stage::Preview`].
    fn wants_preview(state: &Self::State) -> bool;
    /// Scalars of the step with number `t`.
    fn prepare(&self, t: u64, scalars: &Self::Scalars) -> Self::Prepared;
    /// Folds the sums of a pass over one tensor into its scalars.
    fn refine(&self, pass: usize, measured: &Measured, prepared: &mut Self::Prepared);
    /// Cuts a tensor into units; sizes depend on the shape alone, never on threads.
    fn split<'u>(
        &'u self,
        job: Job<'u, T, Self::State, Self::Prepared>,
        push: impl FnMut(Self::Unit<'u>),
    );
    /// Does one piece of work. Cannot fail: whatever can go wrong was checked before.
    fn run(unit: &mut Self::Unit<'_>);
    /// The sums that a unit took.
    fn sums(unit: &Self::Unit<'_>) -> Sums;
    /// What a unit costs, in units of anything.
    fn cost(unit: &Self::Unit<'_>) -> f64 {
        let _ = unit;
        1.0
    }
}
