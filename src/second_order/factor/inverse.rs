//! What a refresh makes of a statistic.

use super::{Eigenpairs, FactorOptions, Symmetric};
use crate::error::Result;
use crate::numeric::Real;
use crate::quant::MatrixCodec;
use crate::state::{Lookup, Record, StateBytes};
use ndarray::{Array1, Array2, ArrayRef2};

/// Where eigenpairs stand in a state dict, apart from those of a statistic.
const PAIRS: &str = "inverse";

/// The inverse root of a statistic; or its eigenvalues and eigenvectors, of which a preconditioner makes
/// inverses of several factors together.
#[derive(Clone, Debug)]
pub enum Inverse<R> {
    /// The root.
    Root(Symmetric<R>),
    /// Eigenvalues, corrected for bias and never negative, and eigenvectors.
    Eigenpairs(Eigenpairs<R>),
}

impl<R: Real> Inverse<R> {
    /// The root I, or eigenvalues 1 in the basis I.
    pub(super) fn new(n: usize, codec: Option<MatrixCodec>, options: &FactorOptions) -> Self {
        if options.eigenpairs {
            Self::Eigenpairs(Eigenpairs::new(n, codec, 1.0))
        } else {
            Self::Root(Symmetric::new(Array2::eye(n), codec))
        }
    }

    /// Takes over `root()`, or `pairs()`, whichever is kept; after an error nothing has changed.
    pub(super) fn refresh(
        &mut self,
        root: impl FnOnce() -> Result<Array2<R>>,
        pairs: impl FnOnce() -> Result<(Array1<R>, Array2<R>)>,
    ) -> Result<()> {
        match self {
            Self::Root(stored) => stored.store(&root()?),
            Self::Eigenpairs(stored) => {
                let (values, vectors) = pairs()?;
                stored.replace(values, &vectors)
            }
        }
    }

    pub(super) fn root(&self) -> Option<&Symmetric<R>> {
        match self {
            Self::Root(root) => Some(root),
            Self::Eigenpairs(_) => None,
        }
    }

    pub(super) fn eigenpairs(&self) -> Option<&Eigenpairs<R>> {
        match self {
            Self::Root(_) => None,
            Self::Eigenpairs(pairs) => Some(pairs),
        }
    }

    pub(super) fn count(&self, bytes: &mut StateBytes) {
        match self {
            Self::Root(root) => bytes.add("root", root.bytes()),
            Self::Eigenpairs(pairs) => pairs.count(bytes),
        }
    }

    pub(super) fn save(&self, record: &mut Record<'_>) {
        match self {
            Self::Root(root) => root.save("root", record),
            Self::Eigenpairs(pairs) => pairs.save(&mut record.nested(PAIRS)),
        }
    }

    pub(super) fn load(
        n: usize,
        codec: Option<MatrixCodec>,
        options: &FactorOptions,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        if options.eigenpairs {
            Eigenpairs::load(n, codec, &lookup.nested(PAIRS)).map(Self::Eigenpairs)
        } else {
            Symmetric::load_from("root", n, codec, lookup).map(Self::Root)
        }
    }
}

/// Eigenvalues of a statistic as [`Inverse`] keeps them.
pub(super) fn corrected<R: Real>(values: &Array1<R>, options: &FactorOptions) -> Array1<R> {
    let scale = options.scale(values.iter().map(|x| x.widen()).sum());
    // rounding may have left one just below zero
    values.mapv(|x| R::of(scale * x.widen().max(0.0)))
}

/// Eigenvalues and eigenvectors of a statistic.
pub(super) fn pairs_of<S: Real, R: Real>(
    a: &ArrayRef2<S>,
    options: &FactorOptions,
) -> Result<(Array1<R>, Array2<R>)> {
    let narrow = |(values, vectors): (Array1<f64>, Array2<f64>)| {
        (corrected(&values, options).mapv(R::of), vectors.mapv(R::of))
    };
    if !options.double_roots
        && let Ok((values, vectors)) = crate::linalg::eigh(a)
    {
        return Ok(narrow((values.mapv(S::widen), vectors.mapv(S::widen))));
    }
    crate::linalg::eigh(&a.mapv(S::widen)).map(narrow)
}
