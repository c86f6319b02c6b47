//! Trees of arrays whose elements lie in memory in any order.

use eigenstep::numeric::{Element, Real};
use eigenstep::params::{GradVisitor, Gradients, ParamVisitor, Parameters};
use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD, IxDyn, Slice};

/// How the elements of an array lie in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    RowMajor,
    Fortran,
    /// Every second element of a larger array, backwards along each dimension.
    Spread,
}

pub const ORDERS: [Order; 3] = [Order::RowMajor, Order::Fortran, Order::Spread];

#[derive(Clone, Debug)]
pub struct Held<T> {
    memory: ArrayD<T>,
    order: Order,
}

impl<T: Element> Held<T> {
    /// `values` in row-major order.
    pub fn new(shape: &[usize], order: Order, values: &[T]) -> Self {
        let memory_shape: Vec<usize> = match order {
            Order::RowMajor => shape.to_vec(),
            Order::Fortran => shape.iter().rev().copied().collect(),
            Order::Spread => shape.iter().map(|dim| 2 * dim).collect(),
        };
        let mut held = Self { memory: ArrayD::from_elem(IxDyn(&memory_shape), gap()), order };
        held.view_mut().iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        held
    }

    pub fn view(&self) -> ArrayViewD<'_, T> {
        match self.order {
            Order::RowMajor => self.memory.view(),
            Order::Fortran => self.memory.view().reversed_axes(),
            Order::Spread => self.memory.slice_each_axis(|_| Slice::new(0, None, -2)),
        }
    }

    pub fn view_mut(&mut self) -> ArrayViewMutD<'_, T> {
        match self.order {
            Order::RowMajor => self.memory.view_mut(),
            Order::Fortran => self.memory.view_mut().reversed_axes(),
            Order::Spread => self.memory.slice_each_axis_mut(|_| Slice::new(0, None, -2)),
        }
    }

    /// Whether the elements between those of the array are as they were.
    fn gaps_are_untouched(&self) -> bool {
        let gaps = self.memory.iter().filter(|&&x| x == gap()).count();
        self.order != Order::Spread || gaps >= self.memory.len() - self.view().len()
    }
}

/// What lies between the elements of a spread array.
fn gap<T: Element>() -> T {
    T::store(T::Compute::of(-77.0))
}

/// Named arrays.
#[derive(Clone, Debug)]
pub struct Tree<T>(pub Vec<(String, Held<T>)>);

impl<T: Element> Tree<T> {
    /// Arrays `a`, `b` and so on, with `value(leaf, element)`, row-major.
    pub fn new(shapes: &[&[usize]], order: Order, value: impl Fn(usize, usize) -> T) -> Self {
        let leaf = |(leaf, shape): (usize, &&[usize])| {
            let numel = shape.iter().product();
            let values: Vec<T> = (0..numel).map(|i| value(leaf, i)).collect();
            let name = char::from(b'a' + leaf as u8).to_string();
            (name, Held::new(shape, order, &values))
        };
        Self(shapes.iter().enumerate().map(leaf).collect())
    }

    /// Arrays of numbers between −1 and 1.
    pub fn random(shapes: &[&[usize]], order: Order, seed: u64) -> Self {
        Self::new(shapes, order, |leaf, i| {
            T::store(T::Compute::of(noise(seed, ((leaf as u64) << 32) + i as u64)))
        })
    }

    /// All elements in order.
    pub fn values(&self) -> Vec<T> {
        self.0
            .iter()
            .flat_map(|(_, held)| held.view().iter().copied().collect::<Vec<_>>())
            .collect()
    }

    pub fn bits(&self) -> Vec<u8> {
        assert!(self.0.iter().all(|(_, held)| held.gaps_are_untouched()));
        bits(&self.values())
    }

    /// The same leaves in the opposite order.
    pub fn reversed(&self) -> Self {
        Self(self.0.iter().rev().cloned().collect())
    }
}

impl<T: Element> Parameters<T> for Tree<T> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, T>) {
        for (name, held) in &mut self.0 {
            visitor.child(&*name, held);
        }
    }
}

impl<T: Element> Gradients<T> for Tree<T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        for (name, held) in &self.0 {
            visitor.child(name, held);
        }
    }
}

impl<T: Element> Parameters<T> for Held<T> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, T>) {
        visitor.leaf(self.view_mut());
    }
}

impl<T: Element> Gradients<T> for Held<T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        visitor.leaf(self.view());
    }
}

/// A number in [-1, 1) that depends on nothing but its arguments.
pub fn noise(seed: u64, i: u64) -> f64 {
    (hash(seed, i) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

pub fn hash(seed: u64, i: u64) -> u64 {
    let mut z = (seed << 48).wrapping_add(i).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Any bits: infinities, NaN with any payload, denormal numbers.
pub fn any_bits<T: Element>(seed: u64, i: usize) -> T {
    T::read_le(&hash(seed, i as u64).to_le_bytes()[..size_of::<T>()])[0]
}

pub fn bits<T: Element>(values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    T::write_le(values, &mut bytes);
    bytes
}

/// Runs a test for every element type.
#[macro_export]
macro_rules! every_type {
    ($test:ident($($argument:expr),*)) => {
        $test::<f32>($($argument),*);
        $test::<f64>($($argument),*);
        #[cfg(feature = "half")]
        {
            $test::<eigenstep::numeric::bf16>($($argument),*);
            $test::<eigenstep::numeric::f16>($($argument),*);
        }
    };
}
