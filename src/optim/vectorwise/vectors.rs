//! Vectors of several tensors: what [`Vectored`] remembers jointly.

use super::erased::{AnyMemory, AnyVector};
use super::vector::{ReadVector, Scope, VectorStep};
use crate::error::{Error, Result, check_shape};
use crate::kernel::Isa;
use crate::numeric::{Element, Real};
use crate::optim::method::{
    GradEntry, GradSlice, GradSource, Methods, ParamInfo, RegularizedGrad, SavedShared,
    SharedState, TensorMethod,
};
use crate::state::{Lookup, Record, Scalar, StateBytes, StateDict, Storage};
use crate::tree::{Layout, Segment};
use std::collections::BTreeMap;

/// Memories of vectors that consist of several tensors, and those of the inner method.
#[derive(Clone, Debug)]
pub struct SharedVectors<J, R: Real> {
    vectors: Vec<Vector<R>>,
    inner: J,
}

impl<J: Default, R: Real> Default for SharedVectors<J, R> {
    fn default() -> Self {
        Self { vectors: Vec::new(), inner: J::default() }
    }
}

#[derive(Clone, Debug)]
struct Vector<R: Real> {
    /// The group whose parameters these are; `None`: those of all groups.
    group: Option<usize>,
    t: u64,
    layout: Layout,
    /// Number of the segment of every name.
    places: BTreeMap<String, usize>,
    memory: AnyMemory<R>,
    /// The part of this step that belongs to each segment; kept for its memory.
    parts: Vec<Option<usize>>,
}

impl<R: Real> Vector<R> {
    fn new(group: Option<usize>, layout: Layout, memory: AnyMemory<R>) -> Self {
        let places = layout.segments().iter().enumerate();
        let places = places.filter(|(_, segment)| !segment.name.is_empty());
        let places = places.map(|(place, segment)| (segment.name.clone(), place)).collect();
        Self { group, t: 0, layout, places, memory, parts: Vec::new() }
    }

    /// The segment of a parameter; `None`: it is not in this vector.
    fn segment(&self, name: &str) -> Option<&Segment> {
        self.layout.segments().get(*self.places.get(name)?)
    }

    /// Follows its first parameter into another group; the tree may lack some parameters, or all.
    fn follow(&mut self, leaves: &[ParamInfo<'_>]) {
        let place = |leaf: &ParamInfo<'_>| Some((*self.places.get(leaf.name)?, leaf.group));
        let first = leaves.iter().filter_map(place).min();
        if let (Some(group), Some((_, new))) = (&mut self.group, first) {
            *group = new;
        }
    }

    /// The parameter `from` is called `to` from now on; empty: it is gone, and its part stays without a gradient.
    fn rename(&mut self, from: &str, to: &str) {
        let Some(place) = self.places.remove(from) else { return };
        if !to.is_empty() {
            self.places.insert(to.to_owned(), place);
        }
        self.layout = self.layout.renamed(place, to);
    }
}

/// The vectors that parameters form which are in none yet, by group.
fn new_layouts<R: Real>(
    scope: Scope,
    leaves: &[ParamInfo<'_>],
    vectors: &[Vector<R>],
) -> BTreeMap<Option<usize>, Layout> {
    let mut layouts: BTreeMap<_, Layout> = BTreeMap::new();
    let known = |leaf: &&ParamInfo<'_>| !vectors.iter().any(|v| v.segment(leaf.name).is_some());
    for leaf in leaves.iter().filter(known) {
        let group = match scope {
            Scope::Model => None,
            Scope::Group => Some(leaf.group),
            Scope::Tensor => continue,
        };
        layouts.entry(group).or_default().push(leaf.name, leaf.shape);
    }
    layouts
}

/// Whether a memory has failed more often in a row than is tolerated.
pub(super) fn check_failures<R: Real>(
    tolerated: u64,
    name: &str,
    memory: &AnyMemory<R>,
) -> Result<()> {
    match memory.get().failures() {
        Some((failures, problem)) if failures > tolerated => {
            let name = name.to_owned();
            Err(Error::RepeatedFailure { name, block: 0, failures, problem })
        }
        _ => Ok(()),
    }
}

/// The gradient of a vector, gathered from its parts.
struct Gathered<'a, T: Element> {
    layout: &'a Layout,
    parts: &'a [GradEntry<'a, T>],
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
                    let GradEntry { group, param, grad, .. } = *part;
                    RegularizedGrad { grad, param, decay: (self.decay)(group) }.load(inside, piece);
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

impl<T: Element, I: TensorMethod<T>> SharedState<AnyVector<T, I>, T>
    for SharedVectors<I::Shared, T::Compute>
{
    fn check(&self, methods: Methods<'_, AnyVector<T, I>>, leaves: &[ParamInfo<'_>]) -> Result<()> {
        let Some(first) = methods(0).map(AnyVector::get) else { return Ok(()) };
        self.inner.check(&|group| methods(group).map(|method| &method.inner), leaves)?;
        if first.scope() == Scope::Tensor {
            return leaves.iter().try_for_each(|leaf| match methods(leaf.group) {
                Some(method) => method.get().check_layout(&Layout::single(leaf.shape)),
                None => Ok(()),
            });
        }
        for leaf in leaves {
            if let Some(segment) = self.vectors.iter().find_map(|vector| vector.segment(leaf.name))
            {
                check_shape(leaf.name, &segment.shape, leaf.shape)?;
            }
        }
        new_layouts(first.scope(), leaves, &self.vectors).into_iter().try_for_each(
            |(group, layout)| {
                let method = methods(group.unwrap_or(0)).map_or(first, AnyVector::get);
                method.check_layout(&layout)
            },
        )
    }

    fn check_state(&self, methods: Methods<'_, AnyVector<T, I>>) -> Result<()> {
        self.inner.check_state(&|group| methods(group).map(|method| &method.inner))?;
        self.vectors.iter().try_for_each(|vector| {
            let name = vector.layout.segments().first().map_or("", |segment| &segment.name);
            match methods(vector.group.unwrap_or(0)) {
                Some(method) => {
                    check_failures(method.get().tolerated_failures(), name, &vector.memory)
                }
                None => Ok(()),
            }
        })
    }

    fn adopt(
        &mut self,
        methods: Methods<'_, AnyVector<T, I>>,
        leaves: &[ParamInfo<'_>],
        storage: &Storage,
    ) {
        let Some(first) = methods(0).map(AnyVector::get) else { return };
        self.inner.adopt(&|group| methods(group).map(|method| &method.inner), leaves, storage);
        self.vectors.iter_mut().for_each(|vector| vector.follow(leaves));
        for (group, layout) in new_layouts(first.scope(), leaves, &self.vectors) {
            let method = methods(group.unwrap_or(0)).map_or(first, AnyVector::get);
            let memory = method.init(&layout);
            self.vectors.push(Vector::new(group, layout, memory));
        }
    }

    fn absorb(
        &mut self,
        methods: Methods<'_, AnyVector<T, I>>,
        parts: &[GradEntry<'_, T>],
        isa: Isa,
    ) {
        let decay =
            |group: usize| T::Compute::of(methods(group).map_or(0.0, |method| method.get().l2()));
        for vector in &mut self.vectors {
            vector.absorb(methods, parts, isa, &decay);
        }
        if !I::Shared::SOME {
            return;
        }
        // the inner method sees directions in place of gradients
        let directed = parts.iter().map(|part| {
            let grad = match direction_of(&self.vectors, part.name) {
                Some(source) => GradSlice::plain(source),
                None => part.grad,
            };
            GradEntry { grad, ..*part }
        });
        let parts: Vec<GradEntry<'_, T>> = directed.collect();
        self.inner.absorb(&|group| methods(group).map(|method| &method.inner), &parts, isa);
    }

    fn direction(&self, name: &str) -> Option<GradSource<'_, T>> {
        self.inner.direction(name).or_else(|| direction_of(&self.vectors, name))
    }

    fn rename(&mut self, from: &str, to: &str) {
        self.vectors.iter_mut().for_each(|vector| vector.rename(from, to));
        self.vectors.retain(|vector| !vector.places.is_empty());
        self.inner.rename(from, to);
    }

    fn count(&self, bytes: &mut StateBytes) {
        self.vectors.iter().for_each(|vector| vector.memory.get().count(bytes));
        self.inner.count(bytes);
    }

    fn save(&self, prefix: &str, dict: &mut StateDict) {
        for (index, vector) in self.vectors.iter().enumerate() {
            vector.save(&mut Record::new(format!("{prefix}vectors.{index}"), dict));
        }
        self.inner.save(&format!("{prefix}inner."), dict);
    }

    fn load(
        methods: Methods<'_, AnyVector<T, I>>,
        saved: SavedShared<'_>,
        storage: &Storage,
    ) -> Result<Self> {
        let prefix = format!("{}inner.", saved.prefix);
        let nested = SavedShared { prefix: &prefix, ..saved };
        let inner = |group| methods(group).map(|method| &method.inner);
        let mut shared =
            Self { vectors: Vec::new(), inner: I::Shared::load(&inner, nested, storage)? };
        loop {
            let key = format!("{}vectors.{}", saved.prefix, shared.vectors.len());
            match Vector::load(methods, &Lookup::new(key, saved.dict, saved.used))? {
                Some(vector) => shared.vectors.push(vector),
                None => return Ok(shared),
            }
        }
    }
}

/// What takes the place of the gradient of a parameter.
fn direction_of<'v, T: Element>(
    vectors: &'v [Vector<T::Compute>],
    name: &str,
) -> Option<GradSource<'v, T>> {
    vectors
        .iter()
        .find_map(|vector| Some(GradSource::Computed(&vector.memory, vector.segment(name)?.offset)))
}

impl<R: Real> Vector<R> {
    /// Takes the gradients of one step in; a vector without any gradient does not step.
    fn absorb<T: Element<Compute = R>, I: 'static>(
        &mut self,
        methods: Methods<'_, AnyVector<T, I>>,
        parts: &[GradEntry<'_, T>],
        isa: Isa,
        decay: &(dyn Fn(usize) -> R + Sync),
    ) {
        self.parts.clear();
        self.parts.resize(self.layout.segments().len(), None);
        let mut any = false;
        for (index, part) in parts.iter().enumerate() {
            let place = self.places.get(part.name).and_then(|&place| self.parts.get_mut(place));
            if let Some(place) = place {
                *place = Some(index);
                any = true;
            }
        }
        let method = methods(self.group.unwrap_or(0)).filter(|_| any);
        if let Some(method) = method.map(AnyVector::get) {
            self.t += 1;
            let layout = &self.layout;
            let gradient = Gathered { layout, parts, of: &self.parts, decay };
            let step = VectorStep { t: self.t, layout, gradient: &gradient, isa };
            method.absorb(&step, &mut self.memory);
        }
    }

    fn save(&self, record: &mut Record<'_>) {
        record.count("step", self.t);
        if let Some(group) = self.group {
            record.scalar("group", Scalar::Int(group as i64));
        }
        self.layout.save(&mut record.nested("parts"));
        self.memory.get().save(record);
    }

    /// `None`: there is no such vector.
    fn load<T: Element<Compute = R>, I: 'static>(
        methods: Methods<'_, AnyVector<T, I>>,
        lookup: &Lookup<'_>,
    ) -> Result<Option<Self>> {
        if lookup.scalar("step").is_none() {
            return Ok(None);
        }
        let t = lookup.count("step")?;
        let group = match lookup.scalar("group").map(Scalar::as_u64) {
            None => None,
            Some(group) => {
                let group = group.and_then(|group| usize::try_from(group).ok());
                let known = group.filter(|&group| methods(group).is_some());
                let problem = || lookup.problem("group", "is not the number of a group");
                Some(known.ok_or_else(problem)?)
            }
        };
        let Some(method) = methods(group.unwrap_or(0)).map(AnyVector::get) else {
            return Ok(None);
        };
        let expected = if group.is_some() { Scope::Group } else { Scope::Model };
        if method.scope() != expected {
            return Err(lookup.problem("group", "does not fit the scope of the optimizer"));
        }
        let layout = Layout::load(&lookup.nested("parts"))?;
        method.check_layout(&layout).map_err(|error| lookup.problem("parts", error.to_string()))?;
        let memory = method.load(&layout, lookup)?;
        Ok(Some(Self { t, ..Self::new(group, layout, memory) }))
    }
}
