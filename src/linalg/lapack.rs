//! Decompositions by LAPACK through ndarray-linalg: an independent reference for checks, not for
//! speed (its `eigh` is `?syev`, its threads are those of the BLAS in use).

use super::backend::Triangle;
use super::routines::{NO_CONVERGENCE, NOT_POSITIVE, Outcome, Routines};
use crate::numeric::Real;
use ndarray::{Array1, Array2, ArrayView2};
use ndarray_linalg::{Cholesky, Diag, Eigh, JobSvd, QR, SVDDC, Scalar, SolveTriangular, UPLO};

/// The backend over LAPACK.
pub(super) struct Lapack;

impl<R> Routines<R> for Lapack
where
    R: Real + Scalar<Real = R> + ndarray_linalg::Lapack,
{
    fn eigh(&self, a: Array2<R>) -> Outcome<(Array1<R>, Array2<R>)> {
        a.eigh(UPLO::Lower).map_err(|_| NO_CONVERGENCE)
    }

    fn qr(&self, a: ArrayView2<'_, R>) -> Outcome<(Array2<R>, Array2<R>)> {
        a.qr().map_err(|_| "LAPACK refuses the matrix")
    }

    fn cholesky(&self, a: ArrayView2<'_, R>) -> Outcome<Array2<R>> {
        a.cholesky(UPLO::Lower).map_err(|_| NOT_POSITIVE)
    }

    fn svd(&self, a: ArrayView2<'_, R>) -> Outcome<(Array2<R>, Array1<R>, Array2<R>)> {
        match a.svddc(JobSvd::Some) {
            Ok((Some(u), s, Some(vt))) => Ok((u, s, vt)),
            _ => Err(NO_CONVERGENCE),
        }
    }

    fn solve_triangular(
        &self,
        a: ArrayView2<'_, R>,
        triangle: Triangle,
        b: Array2<R>,
    ) -> Outcome<Array2<R>> {
        let triangle = match triangle {
            Triangle::Lower => UPLO::Lower,
            Triangle::Upper => UPLO::Upper,
        };
        a.solve_triangular(triangle, Diag::NonUnit, &b).map_err(|_| "LAPACK refuses the matrix")
    }
}
