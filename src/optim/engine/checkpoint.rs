//! The engine's side of state dicts: what is written, and the checks before anything is taken over.

use super::core::Engine;
use super::group::Group;
use super::grown::Growth;
use super::names::WITHOUT_STATE;
use super::plan::Plan;
use super::tracked::{Tracked, parse_label};
use crate::error::{Result, check_shape};
use crate::numeric::Element;
use crate::numeric::limits::numel;
use crate::optim::method::{Mode, SavedShared, SharedState, TensorMethod, TensorState};
use crate::optim::report::StepOutcome;
use crate::params::Select;
use crate::state::{
    Lookup, Record, Scalar, StateBytes, StateDict, Storage, load_options, parse_shape, problem,
    save_options,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

impl<M: TensorMethod<T>, T: Element> Engine<M, T> {
    /// Bytes held per state slot.
    pub fn state_bytes(&self) -> StateBytes {
        let mut bytes = StateBytes::default();
        for tracked in &self.tracked {
            tracked.state.count(&mut bytes);
            bytes.add_parameters(tracked.shape.iter().product());
        }
        self.shared.count(&mut bytes);
        bytes
    }

    /// A copy of everything needed to go on bit for bit.
    pub fn save(&self) -> StateDict {
        let mut dict = StateDict::new(self.name());
        for (index, group) in self.groups.iter().enumerate() {
            let mut record = Record::new(format!("groups.{index}"), &mut dict);
            record.scalar("select", Scalar::Text(group.select.label().to_owned()));
            let method = &group.method;
            // cannot fail: nothing changes
            let _ = method.changed(&mut |options| {
                save_options(options, &mut record);
                Ok(())
            });
            method.clone().visit_group_state(&mut |name, value| {
                record.scalar(&format!("scalars.{name}"), Scalar::Float(value.get()));
            });
        }
        for tracked in &self.tracked {
            let mut record = Record::new(format!("state.{}", tracked.label()), &mut dict);
            let shape: Vec<String> = tracked.shape.iter().map(usize::to_string).collect();
            record.count("step", tracked.t);
            record.scalar("group", Scalar::Int(tracked.group as i64));
            record.scalar("shape", Scalar::Text(shape.join(",")));
            if tracked.at != self.mode {
                record.scalar("train_mode", Scalar::Bool(tracked.at == Mode::Train));
            }
            match self.groups.get(tracked.group) {
                Some(group) => group.method.save_state(&tracked.state, &tracked.shape, &mut record),
                None => tracked.state.save(&tracked.shape, &mut record),
            }
        }
        self.shared.save("", &mut dict);
        let without_state = self.without_state();
        if !without_state.is_empty() {
            dict.scalars.insert(WITHOUT_STATE.into(), Scalar::Text(without_state.join("\n")));
        }
        if self.interrupted {
            dict.scalars.insert(INTERRUPTED.into(), Scalar::Bool(true));
        }
        if self.has_eval_mode() {
            dict.scalars.insert("train_mode".into(), Scalar::Bool(self.mode == Mode::Train));
        }
        if self.switches > 0 && self.storage.is_random() {
            let switches = i64::try_from(self.switches).unwrap_or(i64::MAX);
            dict.scalars.insert("switches".into(), Scalar::Int(switches));
        }
        dict
    }

    /// Takes a saved state over; after an error nothing has changed.
    pub fn load(&mut self, dict: &StateDict) -> Result<()> {
        dict.check_header(self.name())?;
        if dict.scalars.contains_key(INTERRUPTED) {
            return Err(problem(
                INTERRUPTED,
                "the state was saved after a panic in the middle of a step",
            ));
        }
        let used = RefCell::new(BTreeSet::new());
        let mut groups = self.groups.clone();
        check_group_count(dict, groups.len())?;
        for (index, group) in groups.iter_mut().enumerate() {
            let lookup = Lookup::new(format!("groups.{index}"), dict, &used);
            group.method = group.method.changed(&mut |options| load_options(options, &lookup))?;
            Self::check_range(&group.method)?;
            load_group_state(&mut group.method, &lookup)?;
            check_select(&group.select, &lookup)?;
        }
        let mode = self.load_mode(dict, &used)?;
        let known = self.tracked.iter().map(|tracked| (tracked.label(), &*tracked.shape));
        let known = KnownShapes::new(known.collect());
        let mut tracked = Vec::new();
        for name in parameter_names(dict) {
            let lookup = Lookup::new(format!("state.{name}"), dict, &used);
            let at = lookup.scalar("train_mode").filter(|_| self.has_eval_mode());
            let at = at.and_then(Scalar::as_bool).map_or(mode, mode_of);
            let loaded = load_tracked((&groups, &self.storage), &known, name, &lookup)?;
            tracked.push(Tracked { at, ..loaded });
        }
        // rows that were added follow their parameter
        tracked.sort_by(|a, b| (&a.name, a.row).cmp(&(&b.name, b.row)));
        let methods = |group: usize| groups.get(group).map(|group| &group.method);
        let saved = SavedShared { dict, used: &used, prefix: "" };
        let shared = M::Shared::load(&methods, saved, &self.storage)?;
        let without_state = dict.scalars.get(WITHOUT_STATE).and_then(Scalar::as_text);
        used.borrow_mut().extend(without_state.is_some().then(|| WITHOUT_STATE.to_owned()));
        let switches = self.load_switches(dict, &used)?;
        let used = used.into_inner();
        let mut keys = dict.scalars.keys().chain(dict.tensors.keys());
        if let Some(unknown) = keys.find(|key| !used.contains(*key)) {
            return Err(problem(unknown, format!("is unknown to {}", self.name())));
        }
        // everything fits
        // a dict of an optimizer that has made no step knows no names
        let named = !tracked.is_empty() || without_state.is_some();
        self.names.loaded = named.then(|| names_of(without_state));
        self.groups = groups;
        self.tracked = tracked;
        self.shared = shared;
        self.mode = mode;
        self.interrupted = false;
        self.outcome = StepOutcome::default();
        self.switches = switches;
        self.plan = Plan { stale: true, ..Plan::default() };
        self.growth = Growth::default();
        Ok(())
    }
}

impl<M: TensorMethod<T>, T: Element> Engine<M, T> {
    /// The point at which the parameters stand.
    fn load_mode(&self, dict: &StateDict, used: &RefCell<BTreeSet<String>>) -> Result<Mode> {
        if !self.has_eval_mode() {
            return Ok(Mode::Train);
        }
        let train = dict.scalars.get("train_mode").and_then(Scalar::as_bool);
        used.borrow_mut().insert("train_mode".into());
        train.map(mode_of).ok_or_else(|| problem("train_mode", "is missing"))
    }

    /// How often they have moved; counted for random rounding alone.
    fn load_switches(&self, dict: &StateDict, used: &RefCell<BTreeSet<String>>) -> Result<u64> {
        match dict.scalars.get("switches").filter(|_| self.storage.is_random()) {
            Some(count) => {
                used.borrow_mut().insert("switches".into());
                count.as_u64().ok_or_else(|| problem("switches", "is not a count"))
            }
            None => Ok(0),
        }
    }
}

/// The shapes of the parameters that an optimizer knows, by their names in state dicts.
struct KnownShapes<'s>(BTreeMap<String, &'s [usize]>);

impl<'s> KnownShapes<'s> {
    fn new(known: Vec<(String, &'s [usize])>) -> Self {
        Self(known.into_iter().collect())
    }

    /// What is loaded must have the shape that is known.
    fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        self.0.get(name).map_or(Ok(()), |known| check_shape(name, known, shape))
    }
}

/// Key of a state that was saved in the middle of a step.
const INTERRUPTED: &str = "interrupted";

/// The names of a list, a line each.
fn names_of(list: Option<&str>) -> BTreeSet<String> {
    list.into_iter().flat_map(str::lines).map(str::to_owned).collect()
}

fn mode_of(train: bool) -> Mode {
    if train { Mode::Train } else { Mode::Eval }
}

fn check_group_count(dict: &StateDict, expected: usize) -> Result<()> {
    let numbers = dict.scalars.keys().filter_map(|key| {
        let (number, _) = key.strip_prefix("groups.")?.split_once('.')?;
        number.parse::<usize>().ok()
    });
    let found = numbers.max().map_or(0, |last| last.saturating_add(1));
    if found != expected {
        return Err(problem("groups", format!("expected {expected} groups, found {found}")));
    }
    Ok(())
}

/// A group must select the parameters that it selected when its state was saved.
fn check_select(select: &Select, lookup: &Lookup<'_>) -> Result<()> {
    let found = match lookup.scalar("select").map(Scalar::as_text) {
        None => return Ok(()),
        Some(label) if label == Some(select.label()) => return Ok(()),
        Some(label) => label.unwrap_or("no text"),
    };
    let text = format!("expected the selector `{}`, found `{found}`", select.label());
    Err(lookup.problem("select", text))
}

fn load_group_state<M: TensorMethod<T>, T: Element>(
    method: &mut M,
    lookup: &Lookup<'_>,
) -> Result<()> {
    let mut outcome = Ok(());
    method.visit_group_state(&mut |name, value| {
        let name = format!("scalars.{name}");
        let problem = match lookup.scalar(&name).and_then(Scalar::as_f64) {
            Some(number) => {
                value.set(number);
                // a counter holds neither fractions nor negative numbers
                let held = value.get();
                (held != number && !(held.is_nan() && number.is_nan())).then_some("is not a count")
            }
            None => Some("is missing or no number"),
        };
        if let (Some(problem), Ok(())) = (problem, &outcome) {
            outcome = Err(lookup.problem(&name, problem));
        }
    });
    outcome
}

/// Parameters that have any of the entries that all have, so that a missing one can be named.
fn parameter_names(dict: &StateDict) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for key in dict.scalars.keys().filter_map(|key| key.strip_prefix("state.")) {
        names.extend([".step", ".group", ".shape"].iter().filter_map(|end| key.strip_suffix(end)));
    }
    names
}

/// Reads the state of one parameter; `groups` have the saved options, which decide about slots, and
/// `known` are the shapes of the parameters that the optimizer has.
fn load_tracked<M: TensorMethod<T>, T: Element>(
    (groups, storage): (&[Group<M>], &Storage),
    known: &KnownShapes<'_>,
    name: &str,
    lookup: &Lookup<'_>,
) -> Result<Tracked<M::State>> {
    let t = lookup.count("step")?;
    let group = lookup.count("group").ok().and_then(|group| usize::try_from(group).ok());
    let found = group.and_then(|index| Some((index, groups.get(index)?)));
    let (group, method) = match found {
        Some((index, group)) => (index, &group.method),
        None => return Err(lookup.problem("group", "is missing or not the number of a group")),
    };
    // other programs state no shape; then that of any slot will do, and the others must agree
    let shape = match lookup.scalar("shape") {
        Some(shape) => shape.as_text().and_then(parse_shape),
        None => lookup.slot_shape().filter(|shape| numel(shape).is_some()),
    };
    let shape = shape.ok_or_else(|| {
        lookup.problem("shape", "is missing, or no list of sizes that memory could hold")
    })?;
    let (leaf, row) = parse_label(name);
    known.check(name, &shape)?;
    let state = method.load(&shape, storage, lookup)?;
    Ok(Tracked { t, ..Tracked::new((leaf, row), &shape, group, state) })
}
