//! Vectors of several tensors: what [`Vectored`] remembers jointly.

use super::vector::{Layout, ReadVector, Scope, VectorMemory, VectorMethod, VectorStep, Vectored};
use crate::error::{Error, Result, check_shape};
use crate::kernel::Isa;
use crate::numeric::{Element, Real};
use crate::optim::method::{
    Decayed, GradSource, Joint, Leaf, Methods, Part, SavedJoint, TensorMethod,
};
use crate::state::{Lookup, Record, Scalar, StateBytes, StateDict, Storage, parse_shape};
use std::collections::BTreeMap;
use std::fmt::Debug;

/// Memories of vectors that consist of several tensors.
#[derive(Debug)]
pub struct Vectors<B>(Vec<Vector<B>>);

impl<B> Default for Vectors<B> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

#[derive(Debug)]
struct Vector<B> {
    /// The group whose parameters these are; `None`: those of all groups.
    group: Option<usize>,
    t: u64,
    layout: Layout,
    /// Number of the segment of every name.
    places: BTreeMap<String, usize>,
    memory: B,
    /// The part of this step that belongs to each segment; kept for its memory.
    parts: Vec<Option<usize>>,
}

impl<B> Vector<B> {
    fn new(group: Option<usize>, layout: Layout, memory: B) -> Self {
        let places = layout.segments().iter().enumerate();
        let places = places.map(|(place, segment)| (segment.name.clone(), place)).collect();
        Self { group, t: 0, layout, places, memory, parts: Vec::new() }
    }

    fn holds(&self, group: usize) -> bool {
        self.group.is_none_or(|own| own == group)
    }

    /// Checks that the leaves are those of the first step.
    fn check(&self, optimizer: &'static str, leaves: &[Leaf<'_>]) -> Result<()> {
        let mut found = 0;
        for leaf in leaves.iter().filter(|leaf| self.holds(leaf.group)) {
            let place = self.places.get(leaf.name);
            let Some(segment) = place.and_then(|&place| self.layout.segments().get(place)) else {
                return Err(Error::AddedParameter { optimizer, name: leaf.name.to_owned() });
            };
            check_shape(leaf.name, &segment.shape, leaf.shape)?;
            found += 1;
        }
        if found == self.places.len() {
            return Ok(());
        }
        let missing = self.layout.segments().iter().find(|segment| {
            !leaves.iter().any(|leaf| leaf.name == segment.name && self.holds(leaf.group))
        });
        let name = missing.map(|segment| segment.name.clone()).unwrap_or_default();
        Err(Error::MissingParameter { name })
    }
}

/// The vectors that a tree has, by group.
fn layouts(scope: Scope, leaves: &[Leaf<'_>]) -> BTreeMap<Option<usize>, Layout> {
    let mut layouts: BTreeMap<_, Layout> = BTreeMap::new();
    for leaf in leaves {
        let group = match scope {
            Scope::Model => None,
            Scope::Group => Some(leaf.group),
            Scope::Tensor => continue,
        };
        layouts.entry(group).or_default().push(leaf.name, leaf.shape);
    }
    layouts
}

/// Whether a memory has failed too often.
pub(in crate::optim) fn check_failures<V: VectorMethod, B: VectorMemory>(
    method: &V,
    name: &str,
    memory: &B,
) -> Result<()> {
    match memory.failures() {
        Some((failures, problem)) if failures > method.tolerated_failures() => {
            let name = name.to_owned();
            Err(Error::RepeatedFailure { name, block: 0, failures, problem })
        }
        _ => Ok(()),
    }
}

/// The gradient of a vector, gathered from its parts.
struct Gathered<'a, T: Element> {
    layout: &'a Layout,
    parts: &'a [Part<'a, T>],
    of: &'a [Option<usize>],
    decay: &'a (dyn Fn(usize) -> T::Compute + Sync),
}

impl<T: Element> ReadVector<T::Compute> for Gathered<'_, T> {
    fn load(&self, offset: usize, out: &mut [T::Compute]) {
        let segments = self.layout.segments();
        let first = segments.partition_point(|segment| segment.offset <= offset).saturating_sub(1);
        let (mut position, mut rest) = (offset, out);
        for (place, segment) in segments.iter().enumerate().skip(first) {
            let inside = position - segment.offset;
            let length = segment.numel().saturating_sub(inside).min(rest.len());
            let (piece, others) = rest.split_at_mut(length);
            let part = self.of.get(place).copied().flatten().and_then(|part| self.parts.get(part));
            match part {
                Some(part) => {
                    let Part { group, param, grad, .. } = *part;
                    Decayed { grad, param, decay: (self.decay)(group) }.load(inside, piece);
                }
                None => piece.fill(T::Compute::of(0.0)),
            }
            position += length;
            rest = others;
            if rest.is_empty() {
                return;
            }
        }
    }
}

impl<V: VectorMethod, T: Element> Joint<Vectored<V>, T> for Vectors<V::Memory<T::Compute>>
where
    V::Inner: TensorMethod<T>,
{
    fn check(&self, methods: Methods<'_, Vectored<V>>, leaves: &[Leaf<'_>]) -> Result<()> {
        let Some(first) = methods(0).map(Vectored::method) else { return Ok(()) };
        if first.scope() == Scope::Tensor {
            return leaves.iter().try_for_each(|leaf| match methods(leaf.group) {
                Some(method) => method.method().check_layout(&Layout::single(leaf.shape)),
                None => Ok(()),
            });
        }
        for (group, layout) in layouts(first.scope(), leaves) {
            match self.0.iter().find(|vector| vector.group == group) {
                Some(vector) => vector.check(V::NAME, leaves)?,
                None if self.0.is_empty() || group.is_some() => {
                    let method = methods(group.unwrap_or(0)).map_or(first, Vectored::method);
                    method.check_layout(&layout)?;
                }
                None => {}
            }
        }
        // a group that has lost all of its parameters
        let mut others = self.0.iter().filter(|vector| {
            !vector.places.is_empty() && !leaves.iter().any(|leaf| vector.holds(leaf.group))
        });
        others.try_for_each(|vector| vector.check(V::NAME, leaves))
    }

    fn check_state(&self, methods: Methods<'_, Vectored<V>>) -> Result<()> {
        self.0.iter().try_for_each(|vector| {
            let name = vector.layout.segments().first().map_or("", |segment| &segment.name);
            match methods(vector.group.unwrap_or(0)) {
                Some(method) => check_failures(method.method(), name, &vector.memory),
                None => Ok(()),
            }
        })
    }

    fn adopt(&mut self, methods: Methods<'_, Vectored<V>>, leaves: &[Leaf<'_>], _: &Storage) {
        let Some(first) = methods(0).map(Vectored::method) else { return };
        for (group, layout) in layouts(first.scope(), leaves) {
            if self.0.iter().any(|vector| vector.group == group) {
                continue;
            }
            let method = methods(group.unwrap_or(0)).map_or(first, Vectored::method);
            let memory = method.init(&layout);
            self.0.push(Vector::new(group, layout, memory));
        }
    }

    fn absorb(&mut self, methods: Methods<'_, Vectored<V>>, parts: &[Part<'_, T>], isa: Isa) {
        let decay = |group: usize| {
            T::Compute::of(methods(group).map_or(0.0, |method| method.method().gradient_decay()))
        };
        for vector in &mut self.0 {
            vector.parts.clear();
            vector.parts.resize(vector.layout.segments().len(), None);
            let mut any = false;
            for (index, part) in parts.iter().enumerate() {
                let place =
                    vector.places.get(part.name).and_then(|&place| vector.parts.get_mut(place));
                if let Some(place) = place {
                    *place = Some(index);
                    any = true;
                }
            }
            // a group without any gradient does not step
            let method = methods(vector.group.unwrap_or(0)).filter(|_| any);
            if let Some(method) = method.map(Vectored::method) {
                vector.t += 1;
                let layout = &vector.layout;
                let gradient = Gathered { layout, parts, of: &vector.parts, decay: &decay };
                let step = VectorStep { t: vector.t, layout, gradient: &gradient, isa };
                method.absorb(&step, &mut vector.memory);
            }
        }
    }

    fn direction(&self, name: &str) -> Option<GradSource<'_, T>> {
        self.0.iter().find_map(|vector| {
            let segment = vector.layout.segments().get(*vector.places.get(name)?)?;
            Some(GradSource::Computed(&vector.memory, segment.offset))
        })
    }

    fn count(&self, bytes: &mut StateBytes) {
        self.0.iter().for_each(|vector| vector.memory.count(bytes));
    }

    fn save(&self, dict: &mut StateDict) {
        for (index, vector) in self.0.iter().enumerate() {
            let mut record = Record::new(format!("vectors.{index}"), dict);
            record.scalar("step", Scalar::Int(i64::try_from(vector.t).unwrap_or(i64::MAX)));
            if let Some(group) = vector.group {
                record.scalar("group", Scalar::Int(group as i64));
            }
            for (place, segment) in vector.layout.segments().iter().enumerate() {
                let mut record = record.nested(&format!("parts.{place}"));
                let shape: Vec<String> = segment.shape.iter().map(usize::to_string).collect();
                record.scalar("name", Scalar::Text(segment.name.clone()));
                record.scalar("shape", Scalar::Text(shape.join(",")));
            }
            vector.memory.save(&mut record);
        }
    }

    fn load(methods: Methods<'_, Vectored<V>>, saved: SavedJoint<'_>, _: &Storage) -> Result<Self> {
        let mut vectors = Vec::new();
        loop {
            let index = vectors.len();
            let lookup = Lookup::new(format!("vectors.{index}"), saved.dict, saved.used);
            let Some(step) = lookup.scalar("step") else { return Ok(Self(vectors)) };
            let t = step.as_u64().ok_or_else(|| lookup.problem("step", "is not a count"))?;
            let group =
                match lookup.scalar("group").map(Scalar::as_u64) {
                    None => None,
                    Some(group) => {
                        let group = group.and_then(|group| usize::try_from(group).ok());
                        let known = group.filter(|&group| methods(group).is_some());
                        Some(known.ok_or_else(|| {
                            lookup.problem("group", "is not the number of a group")
                        })?)
                    }
                };
            let Some(method) = methods(group.unwrap_or(0)).map(Vectored::method) else {
                return Ok(Self(vectors));
            };
            let expected =
                method.scope() == if group.is_some() { Scope::Group } else { Scope::Model };
            if !expected {
                return Err(lookup.problem("group", "does not fit the scope of the optimizer"));
            }
            let layout = load_layout(&lookup)?;
            method
                .check_layout(&layout)
                .map_err(|error| lookup.problem("parts", error.to_string()))?;
            let memory = method.load(&layout, &lookup)?;
            vectors.push(Vector { t, ..Vector::new(group, layout, memory) });
        }
    }
}

fn load_layout(lookup: &Lookup<'_>) -> Result<Layout> {
    let mut layout = Layout::new();
    loop {
        let part = lookup.nested(&format!("parts.{}", layout.segments().len()));
        let Some(name) = part.scalar("name") else { return Ok(layout) };
        let name = name.as_text().ok_or_else(|| part.problem("name", "is not a name"))?;
        let shape = part.scalar("shape").and_then(Scalar::as_text).and_then(parse_shape);
        let shape = shape.ok_or_else(|| part.problem("shape", "is missing or no list of sizes"))?;
        let numel = shape.iter().product::<usize>();
        if layout.numel().checked_add(numel).is_none_or(|numel| numel > isize::MAX as usize / 8) {
            return Err(part.problem("shape", "makes the vector too long"));
        }
        layout.push(name, &shape);
    }
}
