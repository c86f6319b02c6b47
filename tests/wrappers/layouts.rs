//! A model in every form and memory order.

use eigenstep::params::{ParamVisitor, Parameters};
use eigenstep::tree::TreeVec;
use ndarray::{Array0, Array1, Array2, Array3, ShapeBuilder, arr0, s};

/// A transposed matrix, one in Fortran order, one with gaps, a scalar, a leaf that is not there, a flat slice.
pub struct Zoo {
    transposed: Array2<f32>,
    pair: (Array3<f32>, Gaps),
    scalar: Array0<f32>,
    absent: Option<Array1<f32>>,
    flat: Flat,
}

/// Every second row and third column.
struct Gaps(Array2<f32>);
struct Flat(Vec<f32>);

impl Parameters<f32> for Gaps {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, f32>) {
        visitor.leaf(self.0.slice_mut(s![..;2, ..;3]));
    }
}
impl Parameters<f32> for Flat {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, f32>) {
        visitor.slice(&mut self.0, &[11]);
    }
}
impl Parameters<f32> for Zoo {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, f32>) {
        visitor.child("transposed", &mut self.transposed);
        visitor.child("pair", &mut self.pair);
        visitor.child("scalar", &mut self.scalar);
        visitor.child("absent", &mut self.absent);
        visitor.child("flat", &mut self.flat);
    }
}

impl Zoo {
    pub fn new() -> Self {
        // zeros of both signs and numbers below the normal ones among them
        let x = |i: usize| match i % 7 {
            0 => -0.0,
            1 => f32::from_bits(i as u32 + 1),
            k => ((i * 37 + k) as f32).sin() * 3.0,
        };
        let mut fortran = Array3::zeros((4, 3, 5).f());
        fortran.indexed_iter_mut().for_each(|((i, j, k), p)| *p = x(100 + 15 * i + 5 * j + k));
        Self {
            transposed: Array2::from_shape_fn((6, 5), |(i, j)| x(5 * i + j)).reversed_axes(),
            pair: (fortran, Gaps(Array2::from_shape_fn((7, 9), |(i, j)| x(200 + 9 * i + j)))),
            scalar: arr0(1.5),
            absent: None,
            flat: Flat((0..11).map(|i| x(300 + i)).collect()),
        }
    }

    /// All bits, those between the leaves too.
    pub fn bits(&self) -> Vec<u32> {
        let matrices = self.transposed.iter().chain(&self.pair.0).chain(&self.pair.1.0);
        matrices.chain(&self.scalar).chain(&self.flat.0).map(|x| x.to_bits()).collect()
    }

    /// Row-major copies of the leaves, for gradients.
    pub fn leaves(&mut self) -> TreeVec<f32> {
        TreeVec::of(self).unwrap()
    }
}
