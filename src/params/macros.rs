//! `parameters!`: a struct as a tree.

/// Implements [`Parameters`](crate::params::Parameters) and
/// [`Gradients`](crate::params::Gradients) for a struct, from its field names.
///
/// `field => "name"` renames a leaf; `impl<T> Type<T> { … }` serves models that are generic in their
/// element. Fields left out are no parameters. Since both traits are implemented, the gradients of a
/// model can have the model's own type.
///
/// # Examples
/// ```
/// use eigenstep::{parameters, prelude::*};
/// use ndarray::{Array1, Array2};
///
/// struct Linear<T> { weight: Array2<T>, bias: Option<Array1<T>> }
/// parameters!(impl<T> Linear<T> { weight, bias });
///
/// struct Mlp { layers: Vec<Linear<f32>>, head: Linear<f32> }
/// parameters!(Mlp { layers, head => "lm_head" }: f32);
///
/// let layer = |bias| Linear { weight: Array2::<f32>::ones((2, 2)), bias };
/// let mut model = Mlp { layers: vec![layer(None)], head: layer(Some(Array1::zeros(2))) };
/// let grads = Mlp { layers: vec![layer(None)], head: layer(None) }; // no gradient for the bias
///
/// let mut opt = Sgd { lr: 0.5, ..Sgd::default() }.build()?;
/// opt.step(&mut model, &grads)?;
/// assert_eq!(model.head.weight, Array2::from_elem((2, 2), 0.5));
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[macro_export]
macro_rules! parameters {
    (impl<$element:ident> $type:ty { $($fields:tt)* }) => {
        $crate::parameters!(@impl [$element: $crate::numeric::Element] $element, $type, { $($fields)* });
    };
    ($type:ty { $($fields:tt)* } : $element:ty) => {
        $crate::parameters!(@impl [] $element, $type, { $($fields)* });
    };
    (@impl [$($bound:tt)*] $element:ty, $type:ty,
        { $($field:ident $(=> $name:literal)?),* $(,)? }) => {
        impl<$($bound)*> $crate::params::Parameters<$element> for $type {
            fn visit_mut<'a>(
                &'a mut self,
                visitor: &mut $crate::params::ParamVisitor<'a, $element>,
            ) {
                $(visitor.child($crate::parameters!(@name $field $($name)?), &mut self.$field);)*
            }
        }
        impl<$($bound)*> $crate::params::Gradients<$element> for $type {
            fn visit<'a>(&'a self, visitor: &mut $crate::params::GradVisitor<'a, $element>) {
                $(visitor.child($crate::parameters!(@name $field $($name)?), &self.$field);)*
            }
        }
    };
    (@name $field:ident $name:literal) => { $name };
    (@name $field:ident) => { stringify!($field) };
}
