//! The tensors of a run and a copy of their elements, from which they are perturbed and restored.

use crate::error::{Error, Result};
use crate::kernel::huge_pages::Buffer;
use crate::numeric::Element;
use crate::optim::ReadVector;
use crate::params::{Manifest, ParamLeaf, Parameters};
use crate::state::Lookup;
use crate::tree::transfer::{gather, scatter, scatter_with};
use crate::tree::{Layout, Segment, visit};
use ndarray::{Dimension, IxDyn};

/// The tensors of a run, and a copy of their elements before the step.
#[derive(Debug)]
pub(in crate::zeroth_order) struct ParamSnapshot<T: Element> {
    /// Empty before the first step.
    pub layout: Layout,
    /// Row-major, one tensor after another; empty if no copy was asked for.
    base: Buffer<T>,
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
        Ok(Self { layout: Layout::new(), base: Buffer::filled(T::default(), 0) })
    }

    /// The copied elements of all tensors.
    pub fn values(&self) -> &[T::Compute] {
        T::as_compute(&self.base).unwrap_or_default()
    }

    /// Bytes of the copy.
    pub fn bytes(&self) -> usize {
        self.base.bytes()
    }

    /// Reads names and shapes of the parameters, and copies their elements if `copy` is set.
    pub fn read(
        &mut self,
        method: &'static str,
        params: &mut dyn Parameters<T>,
        copy: bool,
    ) -> Result<()> {
        visit(params, &mut |manifest, leaves| {
            match self.layout.segments().is_empty() {
                true => self.layout = Layout::of_leaves(manifest)?,
                false => self.check(method, manifest)?,
            }
            if copy {
                if self.base.len() != self.layout.numel() {
                    self.base = Buffer::filled(T::default(), self.layout.numel());
                }
                gather(leaves, |_| true, &mut self.base);
            }
            Ok(())
        })
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
        params: &mut dyn Parameters<T>,
        f: impl Fn(usize, usize, &[T::Compute], &mut [T::Compute]) + Sync + Send,
    ) -> Result<()> {
        visit(params, &mut |manifest, leaves| {
            self.check(method, manifest)?;
            let place = |leaf: usize| self.offset(leaf);
            scatter_with(leaves, &self.base, place, |tensor, offset, before, out| {
                if let (Some(before), Some(out)) = (T::as_compute(before), T::as_compute_mut(out)) {
                    f(tensor, offset, before, out);
                }
            });
            Ok(())
        })
    }

    /// Restores the parameters from the copy.
    pub fn restore(&self, method: &'static str, params: &mut dyn Parameters<T>) -> Result<()> {
        visit(params, &mut |manifest, leaves| {
            self.check(method, manifest)?;
            scatter(leaves, &self.base, |leaf| self.offset(leaf));
            Ok(())
        })
    }

    fn offset(&self, tensor: usize) -> Option<usize> {
        self.layout.segments().get(tensor).map(|segment| segment.offset)
    }

    /// Calls `f(number, element)` for every element of `coordinates`, which are pairs of tensor and index
    /// in ascending order.
    pub fn for_each(
        &self,
        method: &'static str,
        params: &mut dyn Parameters<T>,
        coordinates: &[(u32, usize)],
        mut f: impl FnMut(usize, &mut T),
    ) -> Result<()> {
        visit(params, &mut |manifest, leaves| {
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

    /// Reads names and shapes that [`Layout::save`] wrote. If tensors are known already, they must be the
    /// same; an estimator that had not stepped yet has saved none.
    pub fn load(&self, lookup: &Lookup<'_>) -> Result<Layout> {
        let (known, layout) = (self.layout.segments(), Layout::load(lookup)?);
        if known.is_empty() || layout.segments().is_empty() {
            return Ok(layout);
        }
        for (i, found) in layout.segments().iter().enumerate() {
            let same_name = known.get(i).filter(|known| known.name == found.name);
            if same_name.is_none_or(|known| known.shape != found.shape) {
                let Segment { name, shape, .. } = found;
                let text = format!("`{name}` {shape:?} is not what the estimator has here");
                let key = if same_name.is_none() { "name" } else { "shape" };
                return Err(lookup.problem(&format!("{i}.{key}"), text));
            }
        }
        let missing = layout.segments().len();
        match known.get(missing) {
            Some(_) => Err(lookup.problem(&format!("{missing}.name"), "is missing")),
            None => Ok(layout),
        }
    }
}

impl<T: Element> ReadVector<T::Compute> for ParamSnapshot<T> {
    fn load(&self, offset: usize, out: &mut [T::Compute]) {
        self.values().load(offset, out);
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
