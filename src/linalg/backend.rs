//! Which backends there are, and the types of their results.

use ndarray::{Array1, Array2};

/// Eigenvalues and eigenvectors; see [`eigh`](super::eigh()).
pub type Eigh<R> = (Array1<R>, Array2<R>);
/// Q and R; see [`qr`](super::qr()).
pub type Qr<R> = (Array2<R>, Array2<R>);
/// U, the singular values, and Vᵀ; see [`svd`](super::svd()).
pub type Svd<R> = (Array2<R>, Array1<R>, Array2<R>);

/// Who computes the decompositions.
///
/// The default is the fastest of the build. The others are there to check it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// Plain Rust without dependencies, in every build.
    #[cfg_attr(not(feature = "faer"), default)]
    Native,
    /// faer, decompositions on one thread; feature `faer`, which is on by default.
    #[cfg(feature = "faer")]
    #[default]
    Faer,
    /// LAPACK through ndarray-linalg; one of the features `lapack-…`. Slow; for checking.
    #[cfg(feature = "lapack")]
    Lapack,
}

/// Which half of a square matrix, diagonal included, holds the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Triangle {
    /// On and below the diagonal.
    Lower,
    /// On and above the diagonal.
    Upper,
}

impl Backend {
    /// Every backend of this build.
    pub const fn available() -> &'static [Backend] {
        &[
            Backend::Native,
            #[cfg(feature = "faer")]
            Backend::Faer,
            #[cfg(feature = "lapack")]
            Backend::Lapack,
        ]
    }
}
