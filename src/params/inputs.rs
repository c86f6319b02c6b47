//! Gradients with more than gradients: a curvature, a loss.

use super::{GradVisitor, Gradients};

/// Gradients, and a second tree of the same names; see [`with_curvature`].
#[derive(Clone, Copy, Debug)]
pub struct WithCurvature<'g, G: ?Sized, H: ?Sized> {
    grads: &'g G,
    curvature: &'g H,
}

/// Gradients with the loss that they belong to; see [`with_loss`].
#[derive(Clone, Copy, Debug)]
pub struct WithLoss<'g, G: ?Sized> {
    grads: &'g G,
    loss: f64,
}

/// Gradients together with a curvature: a second tree whose leaves have names and shapes of gradients.
///
/// What the leaves hold, the method says: Hessian-vector products times their probe for
/// Sophia-H and AdaHessian, gradients at labels that were drawn from the model for Sophia-G. A method
/// that reads no curvature refuses it; one that needs it, on this step, refuses a step without. The parts of a
/// [`Partitioned`](crate::wrappers::Partitioned) get what they read.
///
/// Views such as clipping may stand outside or inside. Outside they act on the gradients alone.
///
/// # Examples
/// ```
/// use eigenstep::{gradient::with_curvature, prelude::*};
/// use ndarray::array;
///
/// let mut w = array![1.0f64, 1.0];
/// let (grad, hessian) = (array![4.0, 0.5], array![8.0, 1.0]);
/// let mut opt = AdaHessian { lr: 0.1, eps: 0.0, ..AdaHessian::default() }.build()?;
/// opt.step(&mut w, &with_curvature(&grad, &hessian))?;
/// // a tenth of Newton's step, 1/2 in both directions
/// assert!(w.iter().all(|x| (x - 0.95).abs() < 1e-12));
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn with_curvature<'g, G: ?Sized, H: ?Sized>(
    grads: &'g G,
    curvature: &'g H,
) -> WithCurvature<'g, G, H> {
    WithCurvature { grads, curvature }
}

/// Gradients together with the loss, for methods whose step depends on it.
///
/// It must be the loss that these gradients are of: not multiplied by the scale of a
/// [`GradScaler`](crate::gradient::GradScaler), and the mean of the micro-batches' losses with the mean of an
/// [`Accumulator`](crate::gradient::Accumulator). Views that rescale gradients, such as clipping, leave the loss
/// as it is; what that does to a method, its page says
/// ([`SpsMax`](crate::first_order::SpsMax), [`Momo`](crate::first_order::Momo)).
///
/// Other methods do not read it. A loss that is not finite is handled as a gradient that is not, by all of
/// them ([`NonFinite`](crate::optim::NonFinite)). [`step_with`](crate::optim::ClosureOptimizer::step_with) and the
/// estimates of zeroth order bring their loss along.
///
/// # Examples
/// ```
/// use eigenstep::{gradient::with_loss, prelude::*};
/// use ndarray::array;
///
/// let mut w = array![3.0f64]; // the loss is w², with the gradient 2w
/// let mut opt = SpsMax { eps: 0.0, ..SpsMax::default() }.build()?;
/// opt.step(&mut w, &with_loss(&array![6.0], 9.0))?;
/// assert_eq!(w, array![0.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn with_loss<G: ?Sized>(grads: &G, loss: f64) -> WithLoss<'_, G> {
    WithLoss { grads, loss }
}

impl<T, G: Gradients<T> + ?Sized, H: Gradients<T> + ?Sized> Gradients<T>
    for WithCurvature<'_, G, H>
{
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        self.grads.visit(visitor);
        visitor.curvature(self.curvature);
    }
}

impl<T, G: Gradients<T> + ?Sized> Gradients<T> for WithLoss<'_, G> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        visitor.loss(self.loss);
        self.grads.visit(visitor);
    }
}
