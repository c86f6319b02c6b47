//! The tensors of a run and a copy of their elements, from which they are perturbed and restored.

use crate::error::{Error, Result};
use crate::kernel::huge_pages::Buffer;
use crate::kernel::parallel::for_each_piece;
use crate::kernel::stream;
use crate::numeric::{Element, Real};
use crate::optim::{Layout, ReadVector, Segment};
use crate::params::{Manifest, ParamBuffers, ParamLeaf, ParamVisitor, Parameters};
use crate::state::{Lookup, Record, Scalar, parse_shape};
use ndarray::{Dimension, IxDyn};
use std::collections::BTreeSet;
use std::mem::take;

/// Buffers for visits to a tree of parameters. They are reused, so that later visits allocate nothing.
#[derive(Debug)]
pub struct VisitBuffers<T: 'static> {
    buffers: ParamBuffers<T>,
    manifest: Manifest,
}

impl<T> Default for VisitBuffers<T> {
    fn default() -> Self {
        Self { buffers: ParamBuffers::default(), manifest: Manifest::default() }
    }
}

impl<T: Element> VisitBuffers<T> {
    /// Calls `f` with the names, shapes and memory of all leaves.
    fn leaves<O>(
        &mut self,
        params: &mut dyn Parameters<T>,
        f: impl FnOnce(&Manifest, &mut [ParamLeaf<'_, T>]) -> Result<O>,
    ) -> Result<O> {
        let mut visitor = ParamVisitor::new(take(&mut self.buffers), take(&mut self.manifest));
        let outcome = match visitor.collect(params) {
            Ok(()) => f(&visitor.manifest, &mut visitor.leaves),
            Err(error) => Err(error),
        };
        (self.buffers, self.manifest) = visitor.into_buffers();
        outcome
    }
}

/// Elements that are perturbed at once: so few that they stay in the first-level cache.
const PIECE: usize = 1024;

/// Elements that one thread writes past the cache before it waits for them: a multiple of [`PIECE`].
const STREAMED: usize = 1 << 16;

/// The tensors of a run, and a copy of their elements before the step.
#[derive(Debug)]
pub(in crate::zeroth_order) struct ParamSnapshot<T: Element> {
    /// Empty before the first step.
    pub layout: Layout,
    /// Row-major, one tensor after another; empty if no copy was asked for.
    pub base: Buffer<T::Compute>,
}

impl<T: Element> ParamSnapshot<T> {
    /// A snapshot before the first step: the tensors are not known yet.
    ///
    /// # Errors
    /// [`Error::UnsupportedElement`] for 16-bit parameters: a step of `ε` is less than their spacing.
    pub fn new(method: &'static str) -> Result<Self> {
        if T::as_compute(&[]).is_none() {
            let (expected, found) = ("f32 or f64, else probes vanish in rounding", T::NAME);
            return Err(Error::UnsupportedElement { method, expected, found });
        }
        Ok(Self { layout: Layout::new(), base: Buffer::filled(T::Compute::of(0.0), 0) })
    }

    /// Reads names and shapes of the parameters, and copies their elements if `copy` is set.
    pub fn read(
        &mut self,
        method: &'static str,
        buffers: &mut VisitBuffers<T>,
        params: &mut dyn Parameters<T>,
        copy: bool,
    ) -> Result<()> {
        buffers.leaves(params, |manifest, leaves| {
            match self.layout.segments().is_empty() {
                true => self.layout = layout_of(manifest)?,
                false => self.check(method, manifest)?,
            }
            if !copy {
                return Ok(());
            }
            if self.base.len() != self.layout.numel() {
                self.base = Buffer::filled(T::Compute::of(0.0), self.layout.numel());
            }
            let beyond = self.is_beyond_cache();
            let mut rest = &mut *self.base;
            for (segment, leaf) in self.layout.segments().iter().zip(leaves) {
                let (to, later) = rest.split_at_mut(segment.numel());
                match leaf {
                    ParamLeaf::Slice(from) => {
                        let from = T::as_compute(from).unwrap_or_default();
                        for_each_piece(to, STREAMED, |offset, to| match beyond {
                            true => stream::copy(from.get(offset..).unwrap_or_default(), to),
                            false => from.load(offset, to),
                        });
                    }
                    ParamLeaf::Strided(from) => {
                        to.iter_mut().zip(from.iter()).for_each(|(to, from)| *to = from.load());
                    }
                }
                rest = later;
            }
            Ok(())
        })
    }

    /// Whether there are so many parameters that elements have left the cache before they are read again.
    fn is_beyond_cache(&self) -> bool {
        self.layout.numel() * size_of::<T>() >= stream::BEYOND_CACHE
    }

    /// Refuses a tree whose leaves, or their order, are not those of the first step: the position of a leaf
    /// selects its random numbers.
    fn check(&self, method: &'static str, manifest: &Manifest) -> Result<()> {
        for (i, known) in self.layout.segments().iter().enumerate() {
            if i >= manifest.len() || manifest.name(i) != known.name {
                return Err(Error::MissingParameter { name: known.name.clone() });
            }
            if manifest.shape(i) != known.shape {
                let (expected, found) = (known.shape.clone(), manifest.shape(i).to_vec());
                return Err(Error::ShapeMismatch { name: known.name.clone(), expected, found });
            }
        }
        match self.layout.segments().len() {
            known if known < manifest.len() => {
                let name = manifest.name(known).to_owned();
                Err(Error::AddedParameter { optimizer: method, name })
            }
            _ => Ok(()),
        }
    }

    /// Calls `f(tensor, offset, before, out)` for every piece of the tree. `before` is the copy, and `f`
    /// writes the parameters `out`.
    pub fn write(
        &self,
        method: &'static str,
        buffers: &mut VisitBuffers<T>,
        params: &mut dyn Parameters<T>,
        f: impl Fn(usize, usize, &[T::Compute], &mut [T::Compute]) + Sync + Send,
    ) -> Result<()> {
        buffers.leaves(params, |manifest, leaves| {
            self.check(method, manifest)?;
            for ((tensor, segment), leaf) in self.layout.segments().iter().enumerate().zip(leaves) {
                let before = self.base.get(segment.offset..).unwrap_or_default();
                let piece = |offset: usize, out: &mut [T::Compute]| {
                    f(tensor, offset, before.get(offset..offset + out.len()).unwrap_or(&[]), out);
                };
                match leaf {
                    ParamLeaf::Slice(out) => {
                        let out = T::as_compute_mut(out).unwrap_or_default();
                        match self.is_beyond_cache() {
                            true => for_each_piece(out, STREAMED, |start, out| {
                                stream::fill(out, PIECE, |offset, out| piece(start + offset, out));
                            }),
                            false => for_each_piece(out, PIECE, piece),
                        }
                    }
                    ParamLeaf::Strided(out) => {
                        let mut values = vec![T::Compute::of(0.0); out.len()];
                        piece(0, &mut values);
                        out.iter_mut().zip(values).for_each(|(to, from)| *to = T::store(from));
                    }
                }
            }
            Ok(())
        })
    }

    /// Restores the parameters from the copy.
    pub fn restore(
        &self,
        method: &'static str,
        buffers: &mut VisitBuffers<T>,
        params: &mut dyn Parameters<T>,
    ) -> Result<()> {
        self.write(method, buffers, params, |_, _, before, out| out.copy_from_slice(before))
    }

    /// Calls `f(number, element)` for every element of `coordinates`, which are pairs of tensor and index
    /// in ascending order.
    pub fn for_each(
        &self,
        method: &'static str,
        buffers: &mut VisitBuffers<T>,
        params: &mut dyn Parameters<T>,
        coordinates: &[(u32, usize)],
        mut f: impl FnMut(usize, &mut T),
    ) -> Result<()> {
        buffers.leaves(params, |manifest, leaves| {
            self.check(method, manifest)?;
            for (number, &(tensor, index)) in coordinates.iter().enumerate() {
                match leaves.get_mut(tensor as usize) {
                    Some(ParamLeaf::Slice(values)) => {
                        values.get_mut(index).into_iter().for_each(|x| f(number, x));
                    }
                    Some(ParamLeaf::Strided(values)) => {
                        let at = unravelled(index, values.shape());
                        values.get_mut(at).into_iter().for_each(|x| f(number, x));
                    }
                    None => {}
                }
            }
            Ok(())
        })
    }

    /// Writes names and shapes.
    pub fn save(&self, record: &mut Record<'_>) {
        for (i, segment) in self.layout.segments().iter().enumerate() {
            let dims: Vec<String> = segment.shape.iter().map(usize::to_string).collect();
            record.scalar(&format!("{i}.name"), Scalar::Text(segment.name.clone()));
            record.scalar(&format!("{i}.shape"), Scalar::Text(dims.join(",")));
        }
    }

    /// Reads names and shapes that [`ParamSnapshot::save`] wrote. If tensors are known already, they must
    /// be the same.
    pub fn load(&self, lookup: &Lookup<'_>) -> Result<Layout> {
        let known = self.layout.segments();
        let mut layout = Layout::new();
        for i in 0.. {
            let (name, shape) = (format!("{i}.name"), format!("{i}.shape"));
            let Some(Scalar::Text(found)) = lookup.scalar(&name) else { break };
            let text = lookup.scalar(&shape).and_then(Scalar::as_text);
            let dims = text.and_then(parse_shape);
            let dims = dims.ok_or_else(|| lookup.problem(&shape, "is not a shape"))?;
            let fits = |s: &Segment| s.name == *found && s.shape == dims;
            if !known.is_empty() && !known.get(i).is_some_and(fits) {
                let text = format!("`{found}` {dims:?} is not what the estimator has here");
                let renamed = known.get(i).is_none_or(|s| s.name != *found);
                return Err(lookup.problem(if renamed { &name } else { &shape }, text));
            }
            layout.push(found, &dims);
        }
        let missing = layout.segments().len();
        match known.get(missing) {
            Some(_) => Err(lookup.problem(&format!("{missing}.name"), "is missing")),
            None => Ok(layout),
        }
    }
}

/// The indices of an element of an array with this shape, from its row-major index.
fn unravelled(mut index: usize, shape: &[usize]) -> IxDyn {
    let mut indices = IxDyn::zeros(shape.len());
    for (at, &dim) in indices.as_array_view_mut().iter_mut().zip(shape).rev() {
        (*at, index) = (index % dim.max(1), index / dim.max(1));
    }
    indices
}

fn layout_of(manifest: &Manifest) -> Result<Layout> {
    let (mut layout, mut names) = (Layout::new(), BTreeSet::new());
    for i in 0..manifest.len() {
        let name = manifest.name(i);
        if !names.insert(name) {
            return Err(Error::DuplicateName { name: name.to_owned() });
        }
        layout.push(name, manifest.shape(i));
    }
    Ok(layout)
}
