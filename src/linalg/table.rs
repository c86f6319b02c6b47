//! The routines of every backend for each arithmetic type.

use super::backend::Backend;
use super::routines::Routines;
use crate::numeric::{ByReal, Real};

/// Selects the routines of a backend; see [`Real::choose`].
pub(super) struct Table(pub(super) Backend);

macro_rules! arm {
    ($type:ident) => {
        fn $type(self) -> &'static dyn Routines<$type> {
            match self.0 {
                Backend::Native => &super::native::Native,
                #[cfg(feature = "faer")]
                Backend::Faer => &super::faer::Faer,
                #[cfg(feature = "lapack")]
                Backend::Lapack => &super::lapack::Lapack,
            }
        }
    };
}

impl ByReal for Table {
    type Output<R: Real> = &'static dyn Routines<R>;
    arm!(f32);
    arm!(f64);
}
