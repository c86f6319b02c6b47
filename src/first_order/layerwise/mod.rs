//! Steps scaled, tensor by tensor, to the size of the weights.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Lamb`] | 8 | very large batches |

mod lamb;

pub use lamb::Lamb;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_layerwise {
    ($macro:ident) => {
        $macro!(Lamb);
    };
}
