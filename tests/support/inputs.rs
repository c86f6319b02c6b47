//! What a step of any rule may need besides gradients: the loss, and a curvature.

use eigenstep::optim::Rule;
use eigenstep::params::{GradVisitor, Gradients, Scaled};
use eigenstep::state::{Input, SlotKind};

/// Whether steps of the rule `U` take a curvature; other rules refuse one.
pub fn reads_curvature<U: Rule>() -> bool {
    let inputs = [Input::Curvature, Input::CurvatureMagnitude].map(SlotKind::Input);
    U::SLOTS.iter().any(|slot| inputs.contains(&slot.kind))
}

/// Gradients with a loss, and with a curvature: the gradients themselves times −1/2, so that every kind of
/// gradient is a curvature, too.
pub struct Inputs<'g, G: ?Sized> {
    grads: &'g G,
    curvature: Option<Scaled<'g, G>>,
    loss: f64,
}

impl<'g, G: ?Sized> Inputs<'g, G> {
    /// The gradients of a step.
    pub fn new(grads: &'g G, loss: f64, curvature: bool) -> Self {
        Self { grads, curvature: curvature.then(|| Scaled::new(-0.5, grads)), loss }
    }

    /// The same with the opposite loss.
    #[allow(dead_code)]
    pub fn with_opposite_loss(self) -> Self {
        Self { loss: -self.loss, ..self }
    }
}

impl<T, G: Gradients<T> + ?Sized> Gradients<T> for Inputs<'_, G> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        visitor.loss(self.loss);
        self.grads.visit(visitor);
        if let Some(curvature) = &self.curvature {
            visitor.curvature(curvature);
        }
    }
}
