//! Steps scaled, tensor by tensor: to the size of the weights, or by that of the gradient.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Amos`] | 0, with momentum 4; 24 per tensor | pre-training without a schedule or decay to tune |
//! | [`Lamb`] | 8 | very large batches |
//! | [`Lars`] | 4 | very large batches, convolutional networks |
//! | [`NovoGrad`] | 4, and 8 per tensor | gradients of very different size from layer to layer |
//! | [`Fromage`] | 0, and 8 per tensor | one learning rate for all layers |

mod amos;
mod fromage;
mod lamb;
mod lars;
mod novograd;

pub use amos::Amos;
pub use fromage::Fromage;
pub use lamb::{Lamb, LambForm};
pub use lars::Lars;
pub use novograd::NovoGrad;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_layerwise {
    ($macro:ident) => {
        $macro!(Amos);
        $macro!(Lamb);
        $macro!(Lars);
        $macro!(NovoGrad);
        $macro!(Fromage);
    };
}
