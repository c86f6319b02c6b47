//! Steps divided by the root of the squares seen so far: their sum, or a moving average;
//! MADGRAD by the cube root of their weighted sum.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Adagrad`] | 4 | sparse gradients |
//! | [`MadGrad`] | 12; without momentum 8 | vision, sparse gradients: generalises as SGD does |
//! | [`RmsProp`] | 4; with momentum 8, centered 4 more | recurrent networks, reinforcement learning |

mod adagrad;
mod madgrad;
mod rmsprop;

pub use adagrad::Adagrad;
pub use madgrad::MadGrad;
pub use rmsprop::RmsProp;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_adagrad {
    ($macro:ident) => {
        $macro!(Adagrad);
        $macro!(MadGrad);
        $macro!(RmsProp);
    };
}
