//! The statistic of a dense factor: a sum of Gram matrices.

use super::inverse::pairs_of;
use super::{FactorOptions, FactorStorage, GramSum, Symmetric};
use crate::error::{Result, check_finite};
use crate::kernel::scratch::with_scratch;
use crate::kernel::squares::sum_of_squares;
use crate::linalg::{mirror_lower, mode_gram, modes, spectral_norm, symmetric_from_lower};
use crate::numeric::Real;
use crate::numeric::range::flushed;
use crate::state::{Lookup, Record, StateTensor};
use ndarray::{Array1, Array2, ArrayRef2, ArrayViewD};

/// A symmetric matrix that changes at every step and is read only now and then.
///
/// Where it is not coded, only the lower triangle is kept up to date, which is half of the work of a step.
#[derive(Clone, Debug)]
pub(super) enum StoredStatistic<R> {
    /// In the type of the parameters.
    Own(Array2<R>),
    /// In `f64`.
    Double(Array2<f64>),
    /// As codes.
    Coded(Symmetric<R>),
}

impl<R: Real> StoredStatistic<R> {
    /// `initial·I`.
    pub fn new(n: usize, storage: FactorStorage, initial: f64) -> Self {
        let own = || Array2::from_diag_elem(n, R::of(initial));
        match storage {
            FactorStorage::Double => Self::Double(Array2::from_diag_elem(n, initial)),
            _ if storage.codec().is_some() => Self::Coded(Symmetric::new(own(), storage.codec())),
            _ => Self::Own(own()),
        }
    }

    /// `A ← old·A + new·M`; if the result is not finite A stays as it was.
    pub fn accumulate(&mut self, gram: &ArrayRef2<R>, options: &FactorOptions) -> Result<()> {
        match self {
            Self::Own(a) => add_matrix(a, gram, options),
            Self::Double(a) => add_matrix(a, gram, options),
            Self::Coded(codes) => {
                let (old, new) = options.weights::<R>();
                let mut sum = codes.load().into_owned();
                sum.zip_mut_with(gram, |a, &m| *a = old * *a + new * m);
                codes.store(&sum)
            }
        }
    }

    /// The same for a sum of Gram matrices.
    pub fn accumulate_sum(&mut self, sum: &GramSum<R>, options: &FactorOptions) -> Result<()> {
        match (self, sum) {
            (Self::Own(a), GramSum::Own(m)) => add_matrix(a, m, options),
            (Self::Double(a), GramSum::Double(m)) => add_matrix(a, m, options),
            (other, sum) => other.accumulate(&sum.whole(), options),
        }
    }

    /// The same for the Gram matrix of dimension `axis` of `x`.
    pub fn accumulate_mode(
        &mut self,
        x: &ArrayViewD<'_, R>,
        axis: usize,
        options: &FactorOptions,
    ) -> Result<()> {
        let contiguous = x.as_standard_layout();
        let (values, shape) = (contiguous.as_slice().unwrap_or_default(), x.shape());
        match self {
            Self::Own(a) => add_mode(a, values, shape, axis, options),
            Self::Double(a) => with_scratch::<f64, _>(values.len(), |wide| {
                wide.iter_mut().zip(values).for_each(|(wide, x)| *wide = x.widen());
                add_mode(a, wide, shape, axis, options)
            }),
            Self::Coded(_) => self.accumulate(&mode_gram(x, axis)?, options),
        }
    }

    /// The matrix.
    pub fn whole(&self) -> Array2<R> {
        match self {
            Self::Own(a) => symmetric_from_lower(a),
            Self::Double(a) => mirror_lower(a.mapv(R::of)),
            Self::Coded(codes) => codes.load().into_owned(),
        }
    }

    /// Its inverse root.
    pub fn root(&self, options: &FactorOptions) -> Result<Array2<R>> {
        match self {
            Self::Own(a) => options.root_of(&symmetric_from_lower(a), true),
            Self::Double(a) => {
                Ok(options.root_of(&symmetric_from_lower(a), true)?.mapv(|x| R::of(x)))
            }
            // what rounding has made unsymmetric stays so
            Self::Coded(codes) => options.root_of(&codes.load(), false),
        }
    }

    /// Its eigenvalues, corrected for bias, and eigenvectors.
    pub fn eigenpairs(&self, options: &FactorOptions) -> Result<(Array1<R>, Array2<R>)> {
        match self {
            Self::Own(a) => pairs_of(&symmetric_from_lower(a), options),
            Self::Double(a) => pairs_of(&symmetric_from_lower(a), options),
            Self::Coded(codes) => pairs_of(&codes.load(), options),
        }
    }

    pub fn trace(&self) -> f64 {
        match self {
            Self::Own(a) => a.diag().iter().map(|x| x.widen()).sum(),
            Self::Double(a) => a.diag().sum(),
            Self::Coded(codes) => codes.load().diag().iter().map(|x| x.widen()).sum(),
        }
    }

    pub fn largest_eigenvalue(&self) -> Result<f64> {
        match self {
            Self::Own(a) => largest(&symmetric_from_lower(a)),
            Self::Double(a) => largest(&symmetric_from_lower(a)),
            Self::Coded(codes) => largest(&codes.load()),
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            Self::Own(a) => a.len() * size_of::<R>(),
            Self::Double(a) => a.len() * size_of::<f64>(),
            Self::Coded(codes) => codes.bytes(),
        }
    }

    pub fn save(&self, name: &str, record: &mut Record<'_>) {
        match self {
            Self::Own(a) => save(name, a, record),
            Self::Double(a) => save(name, a, record),
            Self::Coded(codes) => codes.save(name, record),
        }
    }

    pub fn load_from(
        name: &str,
        n: usize,
        storage: FactorStorage,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        match storage {
            FactorStorage::Double => load(name, n, lookup).map(Self::Double),
            _ if storage.codec().is_some() => {
                Symmetric::load_from(name, n, storage.codec(), lookup).map(Self::Coded)
            }
            _ => load(name, n, lookup).map(Self::Own),
        }
    }
}

/// The largest eigenvalue of a positive semidefinite matrix.
fn largest<S: Real>(a: &ArrayRef2<S>) -> Result<f64> {
    spectral_norm(a, 300, S::epsilon().widen().max(1e-10))
}

/// Changes `a` by `change(a, (old, new))`, unless an entry of the lower triangle would not be finite.
fn add<S: Real>(
    a: &mut Array2<S>,
    options: &FactorOptions,
    change: impl FnOnce(&mut Array2<S>, (S, S)) -> Result<()>,
) -> Result<()> {
    let mut sum = a.clone();
    change(&mut sum, options.weights())?;
    let lower = sum.rows().into_iter().enumerate().flat_map(|(i, row)| row.into_iter().take(i + 1));
    check_finite("a factor", lower)?;
    sum.mapv_inplace(flushed);
    *a = sum;
    Ok(())
}

fn add_matrix<S: Real, R: Real>(
    a: &mut Array2<S>,
    m: &ArrayRef2<R>,
    options: &FactorOptions,
) -> Result<()> {
    add(a, options, |a, (old, new)| {
        a.zip_mut_with(m, |a, &m| *a = old * *a + new * S::of(m.widen()));
        Ok(())
    })
}

fn add_mode<S: Real>(
    a: &mut Array2<S>,
    x: &[S],
    shape: &[usize],
    axis: usize,
    options: &FactorOptions,
) -> Result<()> {
    if stays_finite(a, x, options) {
        modes::add_gram(x, shape, axis, options.weights(), a)?;
        a.mapv_inplace(flushed);
        return Ok(());
    }
    add(a, options, |a, weights| modes::add_gram(x, shape, axis, weights, a))
}

/// Whether no entry of `old·A + new·(x, x)` can overflow on the way: those of a Gram matrix are at most
/// ‖x‖², those of A at most its largest diagonal entry.
fn stays_finite<S: Real>(a: &Array2<S>, x: &[S], options: &FactorOptions) -> bool {
    let squares = sum_of_squares(x);
    let largest = a.diag().iter().fold(0.0_f64, |largest, a| largest.max(a.widen()));
    // half: sums are rounded
    let limit = 0.5 * S::max_value().widen();
    squares < limit && options.beta * largest + options.weight * squares < limit
}

fn save<S: Real>(name: &str, a: &Array2<S>, record: &mut Record<'_>) {
    let whole = symmetric_from_lower(a);
    record.tensor(name, StateTensor::new(a.shape(), whole.as_slice().unwrap_or_default()));
}

fn load<S: Real>(name: &str, n: usize, lookup: &Lookup<'_>) -> Result<Array2<S>> {
    let matrix = Array2::from_shape_vec((n, n), lookup.values(name, &[n, n])?);
    matrix.map_err(|error| lookup.problem(name, error.to_string()))
}
