//! Slow weights, counters and options beside the inner optimizer's state.

use super::options::LookaheadOptions;
use super::slow::{MOMENTA, Slow};
use crate::error::{Result, check_shape};
use crate::numeric::{Element, Real};
use crate::state::{Record, Scalar, StateDict, StateTensor, problem};
use crate::tree::{Layout, Snapshot, TreeVec};
use crate::wrappers::nested::{Reader, load_options, save_options};
use std::collections::BTreeMap;

/// The slots of a parameter: its slow weights, and the fast ones while it stands at the slow ones.
const SLOW: &str = "slow";
const FAST: &str = "fast";

/// Options of a group, and its steps since the last one of the slow weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Group {
    pub options: LookaheadOptions,
    pub steps: u64,
}

/// All that is saved beside the inner optimizer.
#[derive(Clone, Debug)]
pub(super) struct Saved<T: Element> {
    pub groups: Vec<Group>,
    pub slow: Slow<T::Compute>,
    pub fast: Option<Snapshot<T>>,
}

fn save_leaves<T: Element>(tree: &TreeVec<T>, slot: &str, dict: &mut StateDict) {
    for segment in tree.layout().segments() {
        let values = tree.values().get(segment.offset..segment.offset + segment.numel());
        let tensor = StateTensor::new(&segment.shape, values.unwrap_or_default());
        Record::new(format!("state.{}", segment.name), dict).tensor(slot, tensor);
    }
}

/// Writes groups, slow weights, and the fast ones if they are kept.
pub(super) fn save<'g, T: Element>(
    groups: impl Iterator<Item = &'g Group>,
    saved: &Saved<T>,
    dict: &mut StateDict,
) {
    for (index, group) in groups.enumerate() {
        let mut record = Record::new(format!("groups.{index}"), dict);
        save_options(&group.options, &mut record);
        record.count("steps", group.steps);
    }
    save_leaves(&saved.slow.weights, SLOW, dict);
    for ((name, slot), momentum) in &saved.slow.momenta {
        let tensor = StateTensor::new(&[momentum.len()], momentum);
        Record::new(format!("state.{name}"), dict).tensor(&format!("{SLOW}_{slot}"), tensor);
    }
    dict.scalars.insert("train_mode".into(), Scalar::Bool(saved.fast.is_none()));
    if let Some(fast) = &saved.fast {
        save_leaves(fast.tree(), FAST, dict);
    }
}

fn load_leaves<T: Element>(reader: &Reader<'_>, slot: &str) -> Result<TreeVec<T>> {
    let (mut layout, mut values) = (Layout::new(), Vec::new());
    for name in reader.parameters(slot) {
        let lookup = reader.lookup(format!("state.{name}"));
        let shape = lookup.tensor(slot).map_or(&[][..], |tensor| &tensor.shape);
        values.extend(lookup.values::<T>(slot, shape)?);
        layout.push(name, shape);
    }
    let mut tree = TreeVec::zeros(layout);
    tree.values_mut().iter_mut().zip(values).for_each(|(to, from)| *to = from);
    Ok(tree)
}

/// Reads what [`save`] has written, for an optimizer that holds `own`.
pub(super) fn load<T: Element>(own: &Saved<T>, reader: &Reader<'_>) -> Result<Saved<T>> {
    let mut groups = Vec::new();
    for (index, group) in own.groups.iter().enumerate() {
        let lookup = reader.lookup(format!("groups.{index}"));
        let options = load_options(&group.options, &lookup)?;
        let steps = lookup.scalar("steps").and_then(Scalar::as_u64);
        let steps = steps.ok_or_else(|| lookup.problem("steps", "is missing or not a count"))?;
        groups.push(Group { options, steps });
    }
    let weights: TreeVec<T::Compute> = load_leaves(reader, SLOW)?;
    for segment in weights.layout().segments() {
        if let Some(known) = own.slow.weights.layout().get(&segment.name) {
            check_shape(&segment.name, &known.shape, &segment.shape)?;
        }
    }
    let momenta = load_momenta(reader, weights.layout())?;
    let slow = Slow::new(weights, momenta);
    let fast = match reader.dict.scalars.get("train_mode") {
        Some(Scalar::Bool(true)) => None,
        Some(Scalar::Bool(false)) => {
            let fast: TreeVec<T> = load_leaves(reader, FAST)?;
            fast.layout().check_same(slow.weights.layout())?;
            Some(Snapshot::from(fast))
        }
        _ => return Err(problem("train_mode", "is missing, or not a flag")),
    };
    reader.mark("train_mode");
    Ok(Saved { groups, slow, fast })
}

type Momenta<R> = BTreeMap<(String, &'static str), Vec<R>>;

fn load_momenta<R: Real>(reader: &Reader<'_>, layout: &Layout) -> Result<Momenta<R>> {
    let mut momenta = BTreeMap::new();
    for slot in MOMENTA {
        let key = format!("{SLOW}_{slot}");
        for name in reader.parameters(&key) {
            let lookup = reader.lookup(format!("state.{name}"));
            let Some(segment) = layout.get(name) else {
                return Err(lookup.problem(&key, "belongs to no slow weights"));
            };
            momenta.insert((name.to_owned(), slot), lookup.values::<R>(&key, &[segment.numel()])?);
        }
    }
    Ok(momenta)
}
