//! Every optimizer of the lists as a [`Subject`](crate::Subject).

use crate::config::Tested;
use crate::inputs::reads_curvature;
use crate::optimizer::Opt;
use eigenstep::Result;
use eigenstep::error_feedback::{CompressorConfig, Selection};
use eigenstep::hyper::Hyperparameters;
use eigenstep::numeric::Element;
use eigenstep::optim::{MatrixMethod, Rule, Scope, Slot, VectorMethod};

/// Every configuration by the name that the lists give it.
mod types {
    pub use crate::compositions::*;
    pub use eigenstep::prelude::*;
}

/// Every optimizer by the name that the lists give it. They are constants, so that what they point to is compiled
/// where it is used.
#[allow(non_upper_case_globals)]
pub mod named {
    use super::types;
    use crate::config::Subject;

    macro_rules! named {
        ($name:ident) => {
            #[doc = concat!("The optimizer `", stringify!($name), "`.")]
            pub const $name: Subject = Subject::of::<types::$name>();
        };
    }
    eigenstep::for_each_first_order!(named);
    crate::for_each_composition!(named);
    eigenstep::for_each_second_order!(named);
    eigenstep::for_each_low_rank!(named);
    eigenstep::for_each_windowed!(named);
    eigenstep::for_each_error_feedback!(named);
}

macro_rules! rule {
    ($rule:ident) => {
        impl Tested for types::$rule {
            const HAS_EVAL_MODE: bool = <Self as Rule>::HAS_EVAL_MODE;

            fn for_tests() -> Self {
                let mut rule = Self::default();
                // noise that does not hide what the gradient does
                let _ = rule.set_option("temperature", 1e-6);
                rule
            }
            fn reads_curvature() -> bool {
                reads_curvature::<Self>()
            }
            fn slots() -> Vec<Slot> {
                Self::SLOTS.iter().filter(|slot| !slot.kind.is_input()).copied().collect()
            }
            fn optimizer<T: Element>(self) -> Result<Opt<T>> {
                Ok(Box::new(self.build()?))
            }
        }
    };
}
eigenstep::for_each_first_order!(rule);
crate::for_each_composition!(rule);

macro_rules! matrix_method {
    ($method:ident) => {
        impl Tested for types::$method {
            const HAS_EVAL_MODE: bool = false;

            fn for_tests() -> Self {
                let mut method = Self::default();
                // roots within a few steps, and a ridge well above what f32 rounds away
                let eager = [("update_factors_every", 1.0), ("update_roots_every", 2.0)];
                let ridge = ("damping.relative", 0.01);
                // a basis that gradients determine, of an order that is soon decomposed
                let basis = [("update_basis_every", 2.0), ("sides", 1.0), ("max_dim", 130.0)];
                // a subspace that moves, of a rank whose moments are worth coding
                let subspace = [("update_proj_gap", 2.0), ("rank", 60.0)];
                let changed = eager.into_iter().chain([ridge]).chain(basis).chain(subspace);
                for (name, value) in changed {
                    let _ = method.set_option(name, value);
                }
                method
            }
            fn slots() -> Vec<Slot> {
                let method = Self::default();
                let filter = method.grad_ema().map(|filter| Slot::signed(filter.slot));
                let blocks = method.block_slots().iter().map(|slot| Slot::signed(slot));
                let slots = <<Self as MatrixMethod>::Fallback as Rule>::SLOTS.iter().copied();
                filter.into_iter().chain(blocks).chain(slots).collect()
            }
            fn optimizer<T: Element>(self) -> Result<Opt<T>> {
                Ok(Box::new(self.build()?))
            }
        }
    };
}
eigenstep::for_each_second_order!(matrix_method);
eigenstep::for_each_low_rank!(matrix_method);

macro_rules! windowed {
    ($method:ident) => {
        impl Tested for types::$method {
            const HAS_EVAL_MODE: bool = false;

            fn for_tests() -> Self {
                let mut method = Self::default();
                // windows that fill, damping well above what f32 rounds away
                for (name, value) in [("window", 4.0), ("damping", 0.1), ("eps", 0.1)] {
                    let _ = method.set_option(name, value);
                }
                method
            }
            fn slots() -> Vec<Slot> {
                vec![Slot::signed("momentum_buffer")]
            }
            fn optimizer<T: Element>(self) -> Result<Opt<T>> {
                Ok(Box::new(self.build()?))
            }
        }
    };
}
eigenstep::for_each_windowed!(windowed);

macro_rules! error_feedback {
    ($method:ident) => {
        impl Tested for types::$method {
            const HAS_EVAL_MODE: bool = false;

            fn for_tests() -> Self {
                let selection = Selection::TopK { density: 0.5 };
                let compressor = CompressorConfig::TopK(selection);
                // one vector per tensor: groups of several are measured together
                Self { compressor, scope: Scope::Tensor, ..Self::default() }
            }
            fn slots() -> Vec<Slot> {
                types::Adagrad::SLOTS.to_vec()
            }
            fn optimizer<T: Element>(self) -> Result<Opt<T>> {
                Ok(Box::new(self.build()?))
            }
        }
    };
}
eigenstep::for_each_error_feedback!(error_feedback);
