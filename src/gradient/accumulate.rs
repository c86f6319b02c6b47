//! Sums of gradients over micro-batches, and copies of gradients.

use super::blocks::{collect, numel, visit};
use crate::error::{Error, Result};
use crate::kernel::{Isa, Kernel};
use crate::numeric::{Element, Real};
use crate::params::{Generate, GradVisitor, Gradients, Manifest, Scaled};
use ndarray::{ArrayD, IxDyn};
use std::collections::{BTreeMap, BTreeSet};

/// Sums gradients over micro-batches, in buffers of its own.
///
/// Use it when the batch you want does not fit into memory. Clip and step *after* accumulation, on
/// [`Accumulator::mean`]. A gradient that is absent in every micro-batch stays absent; one that is
/// absent in some counts as zero there, as repeated `backward()` in PyTorch. Sums of `bf16` and
/// `f16` gradients are kept in `f32`. Only gradients are summed: a loss or a curvature that comes with them
/// is left out, and goes to the step with [`with_loss`](crate::gradient::with_loss) or
/// [`with_curvature`](crate::gradient::with_curvature) around [`Accumulator::mean`].
///
/// # Examples
/// ```
/// use eigenstep::{gradient::Accumulator, prelude::*};
/// use ndarray::array;
///
/// let mut w = array![0.0f64];
/// let mut opt = Sgd { lr: 1.0, ..Sgd::default() }.build()?;
/// let mut accumulator = Accumulator::new();
/// for micro_batch in [1.0, 2.0, 3.0, 6.0] {
///     accumulator.add(&array![micro_batch])?;
/// }
/// opt.step(&mut w, &accumulator.mean())?;
/// accumulator.reset();
/// assert_eq!(w, array![-3.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Debug)]
pub struct Accumulator<T: Element> {
    sums: BTreeMap<String, Sum<T>>,
    weight: f64,
    count: u64,
    /// A gradient panicked while it was added: the sums hold a part of it.
    torn: bool,
}

/// The sum of one tensor's gradients. After a reset it is absent, but keeps its memory.
#[derive(Debug)]
struct Sum<T: Element> {
    shape: Vec<usize>,
    present: bool,
    values: Values<T>,
}

#[derive(Debug)]
enum Values<T: Element> {
    /// Of types that are their own arithmetic type.
    Native(Vec<T>),
    /// Of half-precision types: rounded once, when the update asks.
    Wide(Wide<T>),
}

#[derive(Debug)]
struct Wide<T: Element> {
    shape: Vec<usize>,
    values: Vec<T::Compute>,
}

impl<T: Element> Generate<T> for Wide<T> {
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn fill(&self, offset: usize, out: &mut [T]) {
        for (out, &x) in out.iter_mut().zip(self.values.get(offset..).unwrap_or_default()) {
            *out = T::store(x);
        }
    }

    fn writes_all(&self) -> bool {
        true
    }
}

impl<T: Element> Sum<T> {
    fn new(shape: &[usize]) -> Self {
        let (shape, numel) = (shape.to_vec(), shape.iter().product());
        let values = if T::as_compute(&[]).is_some() {
            Values::Native(vec![T::default(); numel])
        } else {
            Values::Wide(Wide { shape: shape.clone(), values: vec![T::Compute::default(); numel] })
        };
        Self { shape, present: false, values }
    }

    fn values(&mut self) -> &mut [T::Compute] {
        match &mut self.values {
            Values::Native(values) => T::as_compute_mut(values).unwrap_or_default(),
            Values::Wide(wide) => &mut wide.values,
        }
    }
}

impl<T: Element> Gradients<T> for Sum<T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        match &self.values {
            Values::Native(values) => visitor.slice(values, &self.shape),
            Values::Wide(wide) => visitor.generated(wide),
        }
    }
}

impl<T: Element> Default for Accumulator<T> {
    fn default() -> Self {
        Self { sums: BTreeMap::new(), weight: 0.0, count: 0, torn: false }
    }
}

impl<T: Element> Accumulator<T> {
    /// An empty sum.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the gradients of one micro-batch.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if a gradient has another shape than before;
    /// [`Error::DuplicateName`], [`Error::LengthMismatch`]. Then nothing has changed. [`Error::OutOfOrder`] after
    /// a gradient that is computed on demand has panicked while it was added: a part of it is in the sum, which
    /// can neither grow nor be stepped with until [`Accumulator::reset`].
    pub fn add<G: Gradients<T> + ?Sized>(&mut self, grads: &G) -> Result<()> {
        self.add_weighted(grads, 1.0)
    }

    /// Adds the gradients of one micro-batch `weight` times: for micro-batches of different sizes.
    ///
    /// # Errors
    /// As [`Accumulator::add`]; [`Error::NonFinite`] for the weight.
    pub fn add_weighted<G: Gradients<T> + ?Sized>(&mut self, grads: &G, weight: f64) -> Result<()> {
        if !weight.is_finite() {
            return Err(Error::NonFinite { what: "the weight of a micro-batch", value: weight });
        }
        self.add_tree(&collect(grads)?, weight)
    }

    /// Apart from [`Accumulator::add_weighted`], so that it is compiled once and not for every tree.
    fn add_tree(&mut self, tree: &GradVisitor<'_, T>, weight: f64) -> Result<()> {
        if self.torn {
            return Err(torn());
        }
        self.check(&tree.manifest)?;
        // a panic leaves it so
        self.torn = true;
        let (isa, weight_in_t) = (Isa::detect(), T::Compute::of(weight));
        for (i, leaf) in tree.leaves.iter().enumerate() {
            let (name, shape) = (tree.manifest.name(i), tree.manifest.shape(i));
            let sum = self.sums.entry(name.to_owned()).or_insert_with(|| Sum::new(shape));
            let present = std::mem::replace(&mut sum.present, true);
            let values = sum.values();
            if !present {
                values.fill(T::Compute::default());
            }
            visit(leaf, 0..numel(&tree.manifest, i), |offset, xs| {
                let sums = values.get_mut(offset..).unwrap_or_default();
                isa.run(AddScaled { sums, weight: weight_in_t, xs });
            });
        }
        self.weight += weight;
        self.count += 1;
        self.torn = false;
        Ok(())
    }

    fn check(&self, manifest: &Manifest) -> Result<()> {
        let mut names = BTreeSet::new();
        for i in 0..manifest.len() {
            let (name, found) = (manifest.name(i), manifest.shape(i));
            if !names.insert(name) {
                return Err(Error::DuplicateName { name: name.to_owned() });
            }
            if let Some(sum) = self.sums.get(name).filter(|sum| sum.shape != found) {
                let (name, expected) = (name.to_owned(), sum.shape.clone());
                return Err(Error::ShapeMismatch { name, expected, found: found.to_vec() });
            }
        }
        Ok(())
    }

    /// The sum over the sum of the weights: a view, without a pass over memory.
    pub fn mean(&self) -> Scaled<'_, Self> {
        Scaled::new(1.0 / self.weight, self)
    }

    /// Number of micro-batches since the last reset.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sum of the weights since the last reset.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// Empties the sum, and keeps its memory. Call it after the step.
    pub fn reset(&mut self) {
        self.sums.values_mut().for_each(|sum| sum.present = false);
        (self.weight, self.count, self.torn) = (0.0, 0, false);
    }
}

/// The sum itself; for the average see [`Accumulator::mean`].
impl<T: Element> Gradients<T> for Accumulator<T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        if self.torn {
            return visitor.refuse(torn());
        }
        for (name, sum) in self.sums.iter().filter(|(_, sum)| sum.present) {
            visitor.child(name, sum);
        }
    }
}

/// The error for a sum that holds a part of a gradient.
fn torn() -> Error {
    let problem = "a gradient panicked while it was added; call `reset` and begin the batch anew";
    Error::OutOfOrder { what: "Accumulator", problem }
}

/// `sums += weight·xs`.
struct AddScaled<'a, R> {
    sums: &'a mut [R],
    weight: R,
    xs: &'a [R],
}

impl<R: Real> Kernel for AddScaled<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (sum, &x) in self.sums.iter_mut().zip(self.xs) {
            *sum += self.weight * x;
        }
    }
}

/// Copies gradients as the update would see them: scaled, clamped, rows and generated ones written
/// out. The copy is a tree of gradients of the same names.
///
/// # Errors
/// [`Error::DuplicateName`], [`Error::LengthMismatch`].
///
/// # Examples
/// ```
/// use eigenstep::gradient::{clip_grad_value, materialize};
/// use ndarray::array;
///
/// let copy = materialize(&clip_grad_value(&array![3.0f32, -0.5], 1.0))?;
/// assert_eq!(copy["param"], array![1.0f32, -0.5].into_dyn());
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn materialize<T: Element, G: Gradients<T> + ?Sized>(
    grads: &G,
) -> Result<BTreeMap<String, ArrayD<T>>> {
    let tree = collect(grads)?;
    let mut copies = BTreeMap::new();
    for (i, leaf) in tree.leaves.iter().enumerate() {
        let (name, shape) = (tree.manifest.name(i).to_owned(), tree.manifest.shape(i));
        let mut values = vec![T::default(); shape.iter().product()];
        let numel = values.len();
        visit(leaf, 0..numel, |offset, xs| {
            let values = values.get_mut(offset..).unwrap_or_default();
            values.iter_mut().zip(xs).for_each(|(value, &x)| *value = T::store(x));
        });
        let copy = ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|_| {
            let (name, shape) = (name.clone(), shape.to_vec());
            Error::LengthMismatch { name, shape, expected: numel, found: numel }
        })?;
        if copies.insert(name.clone(), copy).is_some() {
            return Err(Error::DuplicateName { name });
        }
    }
    Ok(copies)
}
