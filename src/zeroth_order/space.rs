//! The parameters as an estimator sees them: which tensors there are, and how a copy of them is
//! perturbed and put back.

use crate::error::{Error, Result};
use crate::kernel::parallel::for_each_piece;
use crate::numeric::Element;
use crate::optim::{Layout, ReadVector};
use crate::params::{Manifest, ParamBuffers, ParamLeaf, ParamVisitor, Parameters};
use crate::state::{Lookup, Record, Scalar, parse_shape};
use ndarray::{Dimension, IxDyn};
use std::collections::BTreeSet;
use std::mem::take;

/// Buffers of one visit to a tree, kept for the next.
#[derive(Debug)]
pub struct Visit<T: 'static> {
    buffers: ParamBuffers<T>,
    manifest: Manifest,
}

impl<T> Default for Visit<T> {
    fn default() -> Self {
        Self { buffers: ParamBuffers::default(), manifest: Manifest::default() }
    }
}

impl<T: Element> Visit<T> {
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

/// Elements that are perturbed at once: they stay in the first-level cache.
const PIECE: usize = 2048;

/// Tensors of a run, and a copy of their elements before the step.
#[derive(Debug)]
pub(super) struct Space<T: 'static> {
    pub layout: Layout,
    /// Row-major, one tensor after another; empty if no copy was asked for.
    base: Vec<T>,
    started: bool,
}

impl<T: Element> Space<T> {
    /// Nothing is known before the first step.
    ///
    /// # Errors
    /// [`Error::UnsupportedElement`]: a step of `ε` is less than the spacing of 16-bit numbers.
    pub fn new(method: &'static str) -> Result<Self> {
        if T::as_compute(&[]).is_none() {
            let (expected, found) = ("f32 or f64, else probes vanish in rounding", T::NAME);
            return Err(Error::UnsupportedElement { method, expected, found });
        }
        Ok(Self { layout: Layout::new(), base: Vec::new(), started: false })
    }

    /// Takes the parameters in, and a copy of them if `copy`.
    pub fn read(
        &mut self,
        method: &'static str,
        visit: &mut Visit<T>,
        params: &mut dyn Parameters<T>,
        copy: bool,
    ) -> Result<()> {
        visit.leaves(params, |manifest, leaves| {
            if self.started {
                self.check(method, manifest)?;
            } else {
                self.layout = layout_of(manifest)?;
                self.started = true;
            }
            if !copy {
                return Ok(());
            }
            self.base.resize(self.layout.numel(), T::default());
            let mut rest = self.base.as_mut_slice();
            for leaf in leaves.iter() {
                let (to, later) = rest.split_at_mut(leaf_len(leaf));
                match leaf {
                    ParamLeaf::Slice(from) => for_each_piece(to, 1 << 16, |offset, to| {
                        to.copy_from_slice(from.get(offset..offset + to.len()).unwrap_or(&[]));
                    }),
                    ParamLeaf::Strided(from) => {
                        for (to, &from) in to.iter_mut().zip(from.iter()) {
                            *to = from;
                        }
                    }
                }
                rest = later;
            }
            Ok(())
        })
    }

    /// Refuses a tree whose leaves are not those of the first step, in their order: their places name
    /// the random numbers.
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

    /// Lets `f(tensor, offset, before, out)` write every piece of the tree from the copy.
    pub fn write(
        &self,
        method: &'static str,
        visit: &mut Visit<T>,
        params: &mut dyn Parameters<T>,
        f: impl Fn(usize, usize, &[T], &mut [T]) + Sync + Send,
    ) -> Result<()> {
        visit.leaves(params, |manifest, leaves| {
            self.check(method, manifest)?;
            for ((tensor, segment), leaf) in self.layout.segments().iter().enumerate().zip(leaves) {
                let before = self.base.get(segment.offset..).unwrap_or_default();
                let piece = |offset: usize, out: &mut [T]| {
                    f(tensor, offset, before.get(offset..offset + out.len()).unwrap_or(&[]), out);
                };
                match leaf {
                    ParamLeaf::Slice(out) => for_each_piece(out, PIECE, piece),
                    ParamLeaf::Strided(out) => {
                        let mut values = vec![T::default(); out.len()];
                        piece(0, &mut values);
                        for (to, from) in out.iter_mut().zip(values) {
                            *to = from;
                        }
                    }
                }
            }
            Ok(())
        })
    }

    /// Puts the copy back.
    pub fn restore(
        &self,
        method: &'static str,
        visit: &mut Visit<T>,
        params: &mut dyn Parameters<T>,
    ) -> Result<()> {
        self.write(method, visit, params, |_, _, before, out| out.copy_from_slice(before))
    }

    /// Calls `f(place, element)` for every element of `places`, ascending pairs of tensor and index.
    pub fn each(
        &self,
        method: &'static str,
        visit: &mut Visit<T>,
        params: &mut dyn Parameters<T>,
        places: &[(u32, usize)],
        mut f: impl FnMut(usize, &mut T),
    ) -> Result<()> {
        visit.leaves(params, |manifest, leaves| {
            self.check(method, manifest)?;
            for (number, &(tensor, index)) in places.iter().enumerate() {
                match leaves.get_mut(tensor as usize) {
                    Some(ParamLeaf::Slice(values)) => {
                        values.get_mut(index).into_iter().for_each(|x| f(number, x));
                    }
                    Some(ParamLeaf::Strided(values)) => {
                        let place = unravelled(index, values.shape());
                        values.get_mut(place).into_iter().for_each(|x| f(number, x));
                    }
                    None => {}
                }
            }
            Ok(())
        })
    }

    /// The copy, as one vector.
    pub fn base(&self) -> Base<'_, T::Compute> {
        Base(T::as_compute(&self.base).unwrap_or_default())
    }

    /// Bytes of the copy.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.base)
    }

    /// Writes names and shapes.
    pub fn save(&self, record: &mut Record<'_>) {
        for (i, segment) in self.layout.segments().iter().enumerate() {
            let dims: Vec<String> = segment.shape.iter().map(usize::to_string).collect();
            record.scalar(&format!("{i}.name"), Scalar::Text(segment.name.clone()));
            record.scalar(&format!("{i}.shape"), Scalar::Text(dims.join(",")));
        }
    }

    /// Names and shapes that [`Space::save`] wrote. Known tensors must be the same.
    pub fn load(&mut self, lookup: &Lookup<'_>) -> Result<()> {
        let mut layout = Layout::new();
        for i in 0.. {
            let (name, shape) = (format!("{i}.name"), format!("{i}.shape"));
            let Some(Scalar::Text(found)) = lookup.scalar(&name) else { break };
            let text = lookup.scalar(&shape).and_then(Scalar::as_text);
            let dims = text.and_then(parse_shape);
            let dims = dims.ok_or_else(|| lookup.problem(&shape, "is not a shape"))?;
            let known = self.layout.segments().get(i);
            if self.started && !known.is_some_and(|s| s.name == *found && s.shape == dims) {
                let text = format!("`{found}` {dims:?} is not what the estimator has here");
                let renamed = known.is_none_or(|s| s.name != *found);
                return Err(lookup.problem(if renamed { &name } else { &shape }, text));
            }
            layout.push(found, &dims);
        }
        if self.started && layout.segments().len() != self.layout.segments().len() {
            return Err(lookup.problem("0.name", "tensors are missing"));
        }
        self.started |= !layout.segments().is_empty();
        self.layout = layout;
        Ok(())
    }
}

/// Elements of a vector in memory.
pub(super) struct Base<'a, R>(&'a [R]);

impl<R: Copy + Sync> ReadVector<R> for Base<'_, R> {
    fn load(&self, offset: usize, out: &mut [R]) {
        self.0.load(offset, out);
    }
}

/// The place of a row-major index in an array of this shape.
fn unravelled(mut index: usize, shape: &[usize]) -> IxDyn {
    let mut place = IxDyn::zeros(shape.len());
    for (at, &dim) in place.as_array_view_mut().iter_mut().zip(shape).rev() {
        (*at, index) = (index % dim.max(1), index / dim.max(1));
    }
    place
}

fn leaf_len<T>(leaf: &ParamLeaf<'_, T>) -> usize {
    match leaf {
        ParamLeaf::Slice(values) => values.len(),
        ParamLeaf::Strided(values) => values.len(),
    }
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
