//! Steps divided by the root of the squares seen so far: their sum, or a moving average;
//! MADGRAD by the cube root of their weighted sum.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Adagrad`] | 4 | sparse gradients |
//! | [`Adadelta`] | 8 | no learning rate, parameters in units of their own |
//! | [`MadGrad`] | 12; without momentum 8 | vision, sparse gradients: generalises as SGD does |
//! | [`RmsProp`] | 4; with momentum 8, centered 4 more | recurrent networks, reinforcement learning |
//! | [`RmsPropTf`] | 4; with momentum 8, centered 4 more | results of TensorFlow's RMSprop |
//! | [`Ftrl`] | 8 | linear models with very many features |

mod adadelta;
mod adagrad;
mod ftrl;
mod madgrad;
mod rmsprop;
mod rmsprop_tf;

pub use adadelta::Adadelta;
pub use adagrad::Adagrad;
pub use ftrl::Ftrl;
pub use madgrad::MadGrad;
pub use rmsprop::RmsProp;
pub use rmsprop_tf::RmsPropTf;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_adagrad {
    ($macro:ident) => {
        $macro!(Adagrad);
        $macro!(Adadelta);
        $macro!(MadGrad);
        $macro!(RmsProp);
        $macro!(RmsPropTf);
        $macro!(Ftrl);
    };
}
