//! An average of weights, kept beside the training.

use crate::error::{Error, Result, check_shape};
use crate::hyper::Hyperparameters;
use crate::numeric::Element;
use crate::optim::Optimizer;
use crate::params::Parameters;
use crate::state::{Record, Scalar, StateBytes, StateDict, problem};
use crate::tree::{Layout, Snapshot, Source, TreeVec, copy, lerp, visit};
use crate::wrappers::exact::exact;
use crate::wrappers::leaves::{PartParams, select};
use crate::wrappers::mix::joined;
use crate::wrappers::nested::{Reader, load_options, save_options};
use std::collections::{BTreeMap, BTreeSet};

/// A rule for averages of weights: how far the average goes towards them in one update.
///
/// [`Ema`](super::Ema) and [`Swa`](super::Swa) are such rules; [`Averaged`] keeps the average.
///
/// # Examples
/// An average of the weights since one half of the training, PyTorch's `avg_fn` of one's own:
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// #[derive(Clone, Debug)]
/// struct Tail;
/// eigenstep::hyperparameters!(Tail, "Tail", {});
/// impl WeightAverage for Tail {
///     /// The averages over the last n/2 and n/2 + 1 of n + 1 weights are nearly the same.
///     fn weight(&self, n: u64, _memory: &mut f64) -> f64 {
///         2.0 / (n as f64 + 2.0)
///     }
/// }
///
/// let mut average = Tail.build()?;
/// for weight in [9.0f32, 3.0, 3.0] {
///     average.update(&mut array![weight])?;
/// }
/// assert_eq!(average.weights().values(), [4.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub trait WeightAverage: Hyperparameters {
    /// Share of the way from the average to the weights in update number `n`, counted from 0, when the average
    /// becomes the weights in any case. `memory` is one number for each parameter, which begins at 1.
    fn weight(&self, n: u64, memory: &mut f64) -> f64;

    /// An average that has seen nothing.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names the option that is out of range.
    fn build<T: Element>(self) -> Result<Averaged<Self, T>> {
        Averaged::new(self)
    }
}

/// An average of weights, kept beside the training and put into the model to evaluate it.
///
/// *Use it with* the rules [`Ema`](super::Ema) and [`Swa`](super::Swa), or one of your own
/// ([`WeightAverage`]), and any optimizer. It owns nothing but the average: show it the parameters
/// after every step, or once per epoch.
///
/// | call | |
/// |---|---|
/// | [`update`](Averaged::update) | takes the parameters into the average |
/// | [`update_exact`](Averaged::update_exact) | the same, of what an optimizer knows of `bf16` and `f16` parameters |
/// | [`swap`](Averaged::swap) · [`restore`](Averaged::restore) | parameters become the average · and come back, to the bit |
/// | [`copy_to`](Averaged::copy_to) | parameters become the average, for good |
/// | [`weights`](Averaged::weights) | the average itself, by name |
/// | [`rename`](Averaged::rename) · [`forget`](Averaged::forget) | parameters that are called otherwise, or gone |
///
/// Averages are kept in the arithmetic type: `f32` for `bf16` parameters. A parameter that appears later begins
/// its average then, with counts of its own. If an update lacks a parameter, its average stays as it is.
/// Buffers that are no parameters, such as running statistics, are the program's. Between `swap` and `restore`
/// the optimizer must not step: it does not know of the average, and `restore` undoes such a step.
///
/// State: `average`, 4 bytes per `f32`, `bf16` or `f16` parameter, 8 per `f64` one; between `swap` and
/// `restore` a `copy` of the parameters.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DuplicateName`]. After an error neither parameters nor average have changed.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![4.0f32];
/// let mut opt = Sgd { lr: 1.0, ..Sgd::default() }.build()?;
/// let mut average = Swa.build()?;
/// for gradient in [1.0, -2.0] {
///     opt.step(&mut w, &array![gradient])?; // 3, 5
///     average.update(&mut w)?;
/// }
/// average.swap(&mut w)?;
/// assert_eq!(w, array![4.0]); // evaluate here
/// average.restore(&mut w)?;
/// assert_eq!(w, array![5.0]); // and go on
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// PyTorch's `AveragedModel` is a second model. Its `use_buffers` has no counterpart: what is to be averaged is
/// what the tree of parameters names.
#[derive(Clone)]
pub struct Averaged<C, T: Element> {
    rule: C,
    average: TreeVec<T::Compute>,
    /// What each leaf of the average has seen.
    ages: Vec<Age>,
    /// The parameters, while the average is in their place.
    copy: Option<Snapshot<T>>,
}

/// Updates of a leaf, and the number that its rule remembers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Age {
    updates: u64,
    memory: f64,
}

impl Age {
    const NEW: Self = Self { updates: 0, memory: 1.0 };
}

impl<C: WeightAverage, T: Element> std::fmt::Debug for Averaged<C, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Averaged").field("rule", &self.rule).finish_non_exhaustive()
    }
}

impl<C: WeightAverage, T: Element> Averaged<C, T> {
    /// An average that has seen nothing.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names the option of the rule that is out of range.
    pub fn new(rule: C) -> Result<Self> {
        rule.validate()?;
        Ok(Self { rule, average: TreeVec::new(), ages: Vec::new(), copy: None })
    }

    /// Takes the parameters into the average.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] between [`Averaged::swap`] and [`Averaged::restore`], when the parameters are the
    /// average; those of a tree that does not fit.
    pub fn update<P: Parameters<T> + ?Sized>(&mut self, params: &mut P) -> Result<()> {
        self.check_place("Averaged::update")?;
        self.see(params)?;
        if let Some(age) = self.only_age(params)? {
            let (weight, age) = self.next(age);
            lerp(weight, params, &mut self.average)?;
            self.ages.fill(age);
            return Ok(());
        }
        for (age, names) in self.ages_in(params)? {
            let mut part = select(params, |name, _| names.contains(name))?;
            self.advance(age, &names, &mut part)?;
        }
        Ok(())
    }

    /// Takes the parameters into the average, as exactly as `optimizer` knows them.
    ///
    /// For `bf16` and `f16` parameters: what [`Rounding`](crate::state::Rounding) remembers of them moves with
    /// every step, when what is stored may stay the same for many. For others it is [`Averaged::update`].
    ///
    /// # Errors
    /// As [`Averaged::update`].
    pub fn update_exact<O: Optimizer<T> + ?Sized, P: Parameters<T> + ?Sized>(
        &mut self,
        optimizer: &mut O,
        params: &mut P,
    ) -> Result<()> {
        self.check_place("Averaged::update_exact")?;
        self.see(params)?;
        for (age, names) in self.ages_in(params)? {
            let mut part: PartParams<'_, T> = select(params, |name, _| names.contains(name))?;
            match exact(optimizer, &mut part)? {
                Some(exact) => self.advance(age, &names, &exact)?,
                None => self.advance(age, &names, &mut part)?,
            }
        }
        Ok(())
    }

    fn check_place(&self, what: &'static str) -> Result<()> {
        let problem = "the parameters are the average; call `restore` first";
        if self.copy.is_some() { Err(Error::OutOfOrder { what, problem }) } else { Ok(()) }
    }

    /// Checks the leaves of a tree, and begins the averages of new ones.
    fn see<P: Parameters<T> + ?Sized>(&mut self, params: &mut P) -> Result<()> {
        let layout = self.average.layout();
        let mut new = false;
        visit(params, &mut |leaves, _| {
            if layout.fits(leaves) {
                return Ok(());
            }
            // finds names that are used twice
            for leaf in Layout::of_leaves(leaves)?.segments() {
                match layout.get(&leaf.name) {
                    Some(known) => check_shape(&leaf.name, &known.shape, &leaf.shape)?,
                    None => new = true,
                }
            }
            Ok(())
        })?;
        if new {
            let unknown = |name: &str, _: &[usize]| layout.get(name).is_none();
            self.average = joined(&self.average, &TreeVec::of(&mut select(params, unknown)?)?)?;
            self.ages.resize(self.average.layout().segments().len(), Age::NEW);
        }
        Ok(())
    }

    /// The age of all leaves, if it is one, and they are those of the tree.
    fn only_age<P: Parameters<T> + ?Sized>(&self, params: &mut P) -> Result<Option<Age>> {
        let first = self.ages.first().filter(|first| self.ages.iter().all(|age| age == *first));
        let mut fits = false;
        visit(params, &mut |leaves, _| {
            fits = self.average.layout().fits(leaves);
            Ok(())
        })?;
        Ok(first.copied().filter(|_| fits))
    }

    /// The leaves of a tree by age.
    fn ages_in<P: Parameters<T> + ?Sized>(&self, params: &mut P) -> Result<Vec<Class>> {
        let mut classes: BTreeMap<(u64, u64), Class> = BTreeMap::new();
        visit(params, &mut |leaves, _| {
            for name in (0..leaves.len()).map(|leaf| leaves.name(leaf)) {
                let position = self.average.layout().position(name);
                let age = position.and_then(|at| self.ages.get(at)).copied().unwrap_or(Age::NEW);
                let class = classes.entry((age.updates, age.memory.to_bits()));
                class.or_insert((age, BTreeSet::new())).1.insert(name.to_owned());
            }
            Ok(())
        })?;
        Ok(classes.into_values().collect())
    }

    /// The weight of an update of leaves of this age, and their age after it.
    fn next(&self, mut age: Age) -> (f64, Age) {
        let weight = self.rule.weight(age.updates, &mut age.memory);
        let weight = if age.updates == 0 { 1.0 } else { weight };
        age.updates += 1;
        (weight, age)
    }

    /// One update of the leaves of these names, which are of one age.
    fn advance<S: Element<Compute = T::Compute>>(
        &mut self,
        age: Age,
        names: &BTreeSet<String>,
        weights: impl Source<S>,
    ) -> Result<()> {
        let (weight, age) = self.next(age);
        lerp(weight, weights, &mut select(&mut self.average, |name, _| names.contains(name))?)?;
        for (segment, own) in self.average.layout().segments().iter().zip(&mut self.ages) {
            if names.contains(&segment.name) {
                *own = age;
            }
        }
        Ok(())
    }

    /// The parameters become the average, for good.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] before the first [`update`](Averaged::update); [`Error::MissingParameter`]: a
    /// parameter has no average; [`Error::UnknownLeaf`]: an average has no parameter.
    pub fn copy_to<P: Parameters<T> + ?Sized>(&self, params: &mut P) -> Result<()> {
        let (what, problem) = ("Averaged", "there is no average yet; call `update` first");
        copy(&self.average, params).map_err(|error| match self.ages.is_empty() {
            true => Error::OutOfOrder { what, problem },
            false => error,
        })
    }

    /// The parameters become the average, until [`Averaged::restore`] brings them back.
    ///
    /// # Errors
    /// As [`Averaged::copy_to`]; [`Error::OutOfOrder`], too, if they are the average already.
    pub fn swap<P: Parameters<T> + ?Sized>(&mut self, params: &mut P) -> Result<()> {
        self.check_place("Averaged::swap")?;
        let snapshot = Snapshot::take(params)?;
        self.copy_to(params)?;
        self.copy = Some(snapshot);
        Ok(())
    }

    /// The parameters become what they were before [`Averaged::swap`], to the bit.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] without a `swap` before; those of [`Snapshot::restore`].
    pub fn restore<P: Parameters<T> + ?Sized>(&mut self, params: &mut P) -> Result<()> {
        let what = "Averaged::restore";
        let problem = "the parameters are not the average; call `swap` first";
        let copy = self.copy.as_ref().ok_or(Error::OutOfOrder { what, problem })?;
        copy.restore(params)?;
        self.copy = None;
        Ok(())
    }

    /// The average: all leaves by name, in the arithmetic type.
    pub fn weights(&self) -> &TreeVec<T::Compute> {
        &self.average
    }

    /// Number of updates that a parameter was part of; `None` if it has not been in any.
    pub fn updates(&self, name: &str) -> Option<u64> {
        self.ages.get(self.average.layout().position(name)?).map(|age| age.updates)
    }

    /// The average of the parameter `from` goes on as that of `to`: a layer has a new name.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] between [`Averaged::swap`] and [`Averaged::restore`]; [`Error::UnknownParameter`]:
    /// `from` has no average; [`Error::DuplicateName`]: `to` has one.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        self.check_place("Averaged::rename")?;
        self.check_known(from)?;
        if from != to && self.average.layout().position(to).is_some() {
            return Err(Error::DuplicateName { name: to.to_owned() });
        }
        self.average.rename(from, to);
        Ok(())
    }

    /// Drops the average of a parameter: it is gone, or begins anew, also with another shape.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] between [`Averaged::swap`] and [`Averaged::restore`]; [`Error::UnknownParameter`].
    pub fn forget(&mut self, name: &str) -> Result<()> {
        self.check_place("Averaged::forget")?;
        self.check_known(name)?;
        let rest = TreeVec::of(&mut select(&mut self.average, |other, _| other != name)?)?;
        let layout = self.average.layout();
        let ages = layout.segments().iter().zip(&self.ages).filter(|(leaf, _)| leaf.name != name);
        self.ages = ages.map(|(_, age)| *age).collect();
        self.average = rest;
        Ok(())
    }

    fn check_known(&self, name: &str) -> Result<()> {
        let layout = self.average.layout();
        let known = layout.segments().iter().map(|leaf| leaf.name.as_str());
        match layout.position(name) {
            Some(_) => Ok(()),
            None => Err(Error::unknown_parameter(C::NAME, name, known)),
        }
    }

    /// Whether the parameters are the average: between [`Averaged::swap`] and [`Averaged::restore`].
    pub fn is_swapped(&self) -> bool {
        self.copy.is_some()
    }

    /// The rule with its options.
    pub fn rule(&self) -> &C {
        &self.rule
    }

    /// Value of an option of the rule; `None` if there is no such option.
    pub fn option(&self, name: &str) -> Option<f64> {
        self.rule.option(name)
    }

    /// Changes an option of the rule, from the next update on.
    ///
    /// # Errors
    /// [`Error::UnknownOption`], [`Error::InvalidHyperparameter`].
    pub fn set_option(&mut self, name: &str, value: f64) -> Result<()> {
        self.rule.set_option(name, value)
    }

    /// Bytes held.
    pub fn state_bytes(&self) -> StateBytes {
        let mut bytes = StateBytes::default();
        bytes.add_parameters(self.average.layout().numel());
        bytes.add("average", self.average.bytes());
        if let Some(copy) = &self.copy {
            bytes.add("copy", copy.tree().bytes());
        }
        bytes
    }

    /// A copy of everything needed to go on bit for bit.
    pub fn state_dict(&self) -> StateDict {
        let mut dict = StateDict::new(C::NAME);
        save_options(&self.rule, &mut Record::new("options", &mut dict));
        self.average.save(&mut Record::new("average", &mut dict));
        for (index, age) in self.ages.iter().enumerate() {
            let mut record = Record::new(format!("ages.{index}"), &mut dict);
            record.count("updates", age.updates);
            record.scalar("memory", Scalar::Float(age.memory));
        }
        dict.scalars.insert(SWAPPED.into(), Scalar::Bool(self.copy.is_some()));
        if let Some(copy) = &self.copy {
            copy.tree().save(&mut Record::new("copy", &mut dict));
        }
        dict
    }

    /// Goes on from a saved state.
    ///
    /// # Errors
    /// [`Error::StateDict`] names the key that does not fit; [`Error::ShapeMismatch`] for a leaf that has another
    /// shape by now. The average stays as it was.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let reader = Reader::new(C::NAME, state)?;
        let rule = load_options(&self.rule, &reader.lookup("options"))?;
        let average: TreeVec<T::Compute> = TreeVec::load(&reader.lookup("average"))?;
        let (mut ages, layout) = (Vec::new(), average.layout());
        for (index, segment) in layout.segments().iter().enumerate() {
            if let Some(known) = self.average.layout().get(&segment.name) {
                check_shape(&segment.name, &known.shape, &segment.shape)?;
            }
            let lookup = reader.lookup(format!("ages.{index}"));
            let updates = lookup.scalar("updates").and_then(Scalar::as_u64);
            let memory = lookup.scalar("memory").and_then(Scalar::as_f64);
            let missing = |name| lookup.problem(name, "is missing or not a number");
            let updates = updates.ok_or_else(|| missing("updates"))?;
            ages.push(Age { updates, memory: memory.ok_or_else(|| missing("memory"))? });
        }
        let copy = match reader.dict.scalars.get(SWAPPED) {
            Some(Scalar::Bool(false)) => None,
            Some(Scalar::Bool(true)) => {
                let copy: TreeVec<T> = TreeVec::load(&reader.lookup("copy"))?;
                copy.layout().check_same(layout)?;
                Some(Snapshot::from(copy))
            }
            _ => return Err(problem(SWAPPED, "is missing, or not a flag")),
        };
        reader.mark(SWAPPED);
        reader.finish()?;
        (self.rule, self.average, self.ages, self.copy) = (rule, average, ages, copy);
        Ok(())
    }
}

/// Leaves of one age, by name.
type Class = (Age, BTreeSet<String>);

/// Key of the flag that the parameters are the average.
const SWAPPED: &str = "swapped";
