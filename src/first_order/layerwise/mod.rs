//! Steps scaled, tensor by tensor: to the size of the weights, or by that of the gradient.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Amos`] | 0, with momentum 4; 24 per tensor | pre-training without a schedule or decay to tune |
//! | [`Lamb`] | 8 | very large batches |
//! | [`NovoGrad`] | 4, and 8 per tensor | gradients of very different size from layer to layer |

mod amos;
mod lamb;
mod novograd;

pub use amos::Amos;
pub use lamb::Lamb;
pub use novograd::NovoGrad;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_layerwise {
    ($macro:ident) => {
        $macro!(Amos);
        $macro!(Lamb);
        $macro!(NovoGrad);
    };
}
