//! Matrix products and decompositions for `f32` and `f64`, on ndarray's types.
//!
//! The functions of this module use the default [`Backend`]: faer with the feature `faer`, else
//! plain Rust. Each is also a method of [`Backend`], so that one can be checked against another.
//!
//! The parts of preconditioners build on them: inverse roots ([`InverseRoot`]), polar factors
//! ([`NewtonSchulz`], [`bjorck()`]), eigenbases of a changing matrix
//! ([`orthogonal_iteration()`], [`qr_algorithm`]), shapes and blocks ([`merge_small_dims`],
//! [`blocks`]), and how well a Kronecker product fits gradients ([`KroneckerFit`]).
//!
//! # Promises
//!
//! * **Conventions do not depend on the backend.** Eigenvalues ascend, singular values descend,
//!   R has a diagonal ≥ 0, and in every eigenvector and left singular vector the entry of largest
//!   magnitude (the first of them) is positive. Within an eigenspace of several dimensions the
//!   basis is the backend's choice; compare V Λ Vᵀ, never V.
//! * **The same numbers give the same bits**, in any memory layout and wherever the matrix lies,
//!   on one machine: decompositions run on one thread, and large products are cut at places that only
//!   their shape decides. Backends, and machines with different vector units, agree to rounding only.
//! * **Backward stable.** With ε the machine epsilon and n the larger dimension, the factors of A
//!   reproduce it, and orthogonal factors are orthogonal, up to a small multiple of n·ε relative
//!   to ‖A‖ and 1 in the Frobenius norm. Matrices of any finite size are scaled by powers of two
//!   where squares could overflow.
//! * **No panic, no NaN out of finite numbers.** For a NaN, an infinity, a wrong shape, a failed iteration
//!   or a result that overflows, decompositions return
//!   [`Error::Decomposition`](crate::Error::Decomposition). Products pass NaN on instead, as sums do.
//!   Empty matrices have empty factors.
//!
//! ```
//! use eigenstep::linalg::{eigh, matmul};
//! use ndarray::{Array2, array};
//!
//! let a = array![[2.0, 1.0], [1.0, 2.0]];
//! let (values, vectors) = eigh(&a)?;
//! let rebuilt = matmul(&matmul(&vectors, &Array2::from_diag(&values))?, &vectors.t())?;
//! assert!((values[0] - 1.0_f64).abs() < 1e-14 && (values[1] - 3.0).abs() < 1e-14);
//! assert!((rebuilt - a).iter().all(|x| x.abs() < 1e-14));
//! # Ok::<(), eigenstep::Error>(())
//! ```

// Floor 1.

mod backend;
mod bjorck;
mod checks;
mod coupled;
mod damping;
mod facade;
#[cfg(feature = "faer")]
mod faer;
mod functions;
mod inverse_root;
mod kronecker_fit;
#[cfg(feature = "lapack")]
mod lapack;
mod layout;
mod matrix_norm;
pub(crate) mod modes;
mod native;
mod newton_schulz;
mod norms;
mod orthogonal_iteration;
mod partition;
mod routines;
mod scale;
mod signs;
mod spectral;
mod table;
mod task;

pub use backend::{Backend, Eigh, Qr, Svd, Triangle};
pub use bjorck::{bjorck, orthogonality_error};
pub(crate) use coupled::COUPLED_EXPONENT;
pub use coupled::CoupledNewton;
pub use damping::{Damping, RidgeRetry};
#[doc(hidden)]
pub use functions::{add_gram_left, add_gram_right, matmul_into, symmetric_from_lower};
pub use functions::{cholesky, eigh, gram_left, gram_right, matmul, qr, solve_triangular, svd};
pub use inverse_root::InverseRoot;
#[doc(hidden)]
pub use inverse_root::{eigen_inverse_root, qr_inverse_root};
pub use kronecker_fit::KroneckerFit;
pub(crate) use layout::mirror_lower;
pub use matrix_norm::MatrixNorm;
pub use modes::{mode_gram, mode_product};
pub use newton_schulz::NewtonSchulz;
#[doc(hidden)]
pub use newton_schulz::NewtonSchulzScratch;
pub(crate) use norms::frobenius;
pub(crate) use orthogonal_iteration::{column_products, qr_algorithm_with_rotation};
#[doc(hidden)]
pub use orthogonal_iteration::{eigenbasis_error, orthogonal_iteration_with, rayleigh_quotients};
pub use orthogonal_iteration::{orthogonal_iteration, qr_algorithm};
pub use partition::{blocks, matrix_shape, merge_small_dims};
#[doc(hidden)]
pub use partition::{matrix_blocks, merge_leading_dims};
pub(crate) use scale::{scale_to_one, sorted};
pub use signs::QrSigns;
#[doc(hidden)]
pub use signs::qr_with;
pub use spectral::spectral_norm;
