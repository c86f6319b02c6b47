//! Trees made of the standard containers, and leaves made of arrays and plain slices.

use super::{GradVisitor, Gradients, ParamVisitor, Parameters};
use crate::numeric::Element;
use ndarray::{ArrayBase, Data, DataMut, Dimension};
use std::collections::BTreeMap;

impl<T: Element, S: DataMut<Elem = T>, D: Dimension> Parameters<T> for ArrayBase<S, D> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, T>) {
        visitor.leaf(self.view_mut());
    }
}

impl<T: Element, S: Data<Elem = T>, D: Dimension> Gradients<T> for ArrayBase<S, D> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        visitor.leaf(self.view());
    }
}

/// A parameter of another library: a flat, row-major slice and its shape.
///
/// # Examples
/// ```
/// use eigenstep::{params::{Flat, FlatMut}, prelude::*};
///
/// let (mut weights, grads) = (vec![1.0f32; 6], vec![0.5f32; 6]);
/// let mut opt = Sgd { lr: 0.1, ..Sgd::default() }.build()?;
/// opt.step(&mut FlatMut::new(&mut weights, &[2, 3]), &Flat::new(&grads, &[2, 3]))?;
/// assert_eq!(weights, vec![0.95; 6]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Debug)]
pub struct FlatMut<'s, T> {
    data: &'s mut [T],
    shape: &'s [usize],
}

impl<'s, T> FlatMut<'s, T> {
    /// A leaf of shape `shape`; a wrong length is reported by the step that uses it.
    pub fn new(data: &'s mut [T], shape: &'s [usize]) -> Self {
        Self { data, shape }
    }
}

impl<T> Parameters<T> for FlatMut<'_, T> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, T>) {
        visitor.slice(self.data, self.shape);
    }
}

/// A gradient of another library: a flat, row-major slice and its shape; see [`FlatMut`].
#[derive(Clone, Copy, Debug)]
pub struct Flat<'s, T> {
    data: &'s [T],
    shape: &'s [usize],
}

impl<'s, T> Flat<'s, T> {
    /// A leaf of shape `shape`; a wrong length is reported by the step that uses it.
    pub fn new(data: &'s [T], shape: &'s [usize]) -> Self {
        Self { data, shape }
    }
}

impl<T> Gradients<T> for Flat<'_, T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        visitor.slice(self.data, self.shape);
    }
}

impl<T, P: Parameters<T> + ?Sized> Parameters<T> for &mut P {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, T>) {
        (**self).visit_mut(visitor);
    }
}

impl<T, G: Gradients<T> + ?Sized> Gradients<T> for &G {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        (**self).visit(visitor);
    }
}

impl<T, P: Parameters<T> + ?Sized> Parameters<T> for Box<P> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, T>) {
        (**self).visit_mut(visitor);
    }
}

impl<T, G: Gradients<T> + ?Sized> Gradients<T> for Box<G> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        (**self).visit(visitor);
    }
}

/// An absent child has no leaves.
impl<T, P: Parameters<T>> Parameters<T> for Option<P> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, T>) {
        if let Some(child) = self {
            child.visit_mut(visitor);
        }
    }
}

/// An absent gradient: its parameters are skipped.
impl<T, G: Gradients<T>> Gradients<T> for Option<G> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        if let Some(child) = self {
            child.visit(visitor);
        }
    }
}

impl<T, P: Parameters<T>> Parameters<T> for [P] {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, T>) {
        for (i, child) in self.iter_mut().enumerate() {
            visitor.child(i, child);
        }
    }
}

impl<T, G: Gradients<T>> Gradients<T> for [G] {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        for (i, child) in self.iter().enumerate() {
            visitor.child(i, child);
        }
    }
}

impl<T, P: Parameters<T>, const N: usize> Parameters<T> for [P; N] {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, T>) {
        self.as_mut_slice().visit_mut(visitor);
    }
}

impl<T, G: Gradients<T>, const N: usize> Gradients<T> for [G; N] {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        self.as_slice().visit(visitor);
    }
}

impl<T, P: Parameters<T>> Parameters<T> for Vec<P> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, T>) {
        self.as_mut_slice().visit_mut(visitor);
    }
}

impl<T, G: Gradients<T>> Gradients<T> for Vec<G> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        self.as_slice().visit(visitor);
    }
}

impl<T, P: Parameters<T>> Parameters<T> for BTreeMap<String, P> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, T>) {
        for (name, child) in self {
            visitor.child(name, child);
        }
    }
}

impl<T, G: Gradients<T>> Gradients<T> for BTreeMap<String, G> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        for (name, child) in self {
            visitor.child(name, child);
        }
    }
}

/// No parameters.
impl<T> Parameters<T> for () {
    fn visit_mut<'a>(&'a mut self, _: &mut ParamVisitor<'a, T>) {}
}

/// No gradients.
impl<T> Gradients<T> for () {
    fn visit<'a>(&'a self, _: &mut GradVisitor<'a, T>) {}
}

macro_rules! tuple {
    ($($child:ident $index:tt),+) => {
        impl<T, $($child: Parameters<T>),+> Parameters<T> for ($($child,)+) {
            fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, T>) {
                $(visitor.child($index, &mut self.$index);)+
            }
        }
        impl<T, $($child: Gradients<T>),+> Gradients<T> for ($($child,)+) {
            fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
                $(visitor.child($index, &self.$index);)+
            }
        }
    };
}
tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
