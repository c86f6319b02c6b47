//! The signs of QR decompositions: R with a positive diagonal, or as LAPACK returns it.

#![allow(clippy::indexing_slicing)] // the elimination is a statement about index ranges

use super::backend::Qr;
use super::functions::qr;
use crate::error::Result;
use crate::numeric::Real;
use ndarray::{Array2, ArrayRef2, Zip, s};

/// Which of the QR decompositions of a matrix is taken: they differ in the signs of Q's columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum QrSigns {
    /// Rᵢᵢ ≥ 0. The decomposition is a continuous function of the matrix: a basis that follows a
    /// slowly changing matrix rotates, and never jumps to its mirror image.
    #[default]
    Positive,
    /// What `geqrf` and `orgqr` return, and so PyTorch, NumPy and SciPy.
    ///
    /// Take it to reproduce the numbers of a program that uses one of them. A sign changes nothing in exact
    /// arithmetic, but codes of few bits are not symmetric: `linear-2` has the level 0.0044 without
    /// −0.0044, so that other signs give other rounding errors.
    Lapack,
}

/// [`qr`](super::qr()) with the signs asked for.
///
/// `a`: m × n of any shape and rank. LAPACK's signs are those of its reflectors. With α the leading
/// entry and x the rest of column j when the reflectors before it are applied:
///
/// ```text
/// Rⱼⱼ = α                    if x = 0 or x has no entries
/// Rⱼⱼ = −sign(α)·‖(α, x)‖    else
/// ```
///
/// They are read off Q by an elimination of 2mk² − 2k³/3 operations, k = min(m, n), in every build.
/// Where x is zero only up to rounding, the sign is arbitrary, as it is between two versions of LAPACK.
///
/// # Errors
/// As [`qr`](super::qr()).
///
/// # Examples
/// ```
/// use eigenstep::linalg::{QrSigns, qr_with};
/// use ndarray::array;
///
/// let a = array![[3.0_f64, 5.0], [4.0, 5.0]];
/// let (_, r) = qr_with(&a, QrSigns::Lapack)?;
/// assert!((r - array![[-5.0, -7.0], [0.0, -1.0]]).iter().all(|x| x.abs() < 1e-14));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// E. Anderson et al., LAPACK Users' Guide, 3rd ed. (`larfg`); the elimination: G. Ballard, J. Demmel,
/// L. Grigori, M. Jacquelin, H. D. Nguyen, E. Solomonik, "Reconstructing Householder Vectors from
/// Tall-Skinny QR", 2014.
pub fn qr_with<R: Real>(a: &ArrayRef2<R>, signs: QrSigns) -> Result<Qr<R>> {
    let (mut q, mut r) = qr(a)?;
    if signs == QrSigns::Lapack {
        let negative = lapack_signs(q.clone());
        for (j, _) in negative.iter().enumerate().filter(|(_, negative)| **negative) {
            q.column_mut(j).mapv_inplace(|x| -x);
            r.row_mut(j).mapv_inplace(|x| -x);
        }
    }
    Ok((q, r))
}

/// Which diagonal entries of LAPACK's R are negative, where Q has the signs of a positive R.
///
/// LAPACK's Q is Q S with signs S, and the leading columns of I − Y T Yᵀ for its reflectors Y. So
/// Q − S = Y U with Y unit lower trapezoidal and U upper triangular: an LU factorisation, whose
/// pivot j before S is subtracted is α of column j, up to the factor Rⱼⱼ > 0.
fn lapack_signs<R: Real>(mut q: Array2<R>) -> Vec<bool> {
    let columns = q.ncols();
    let mut negative = Vec::with_capacity(columns);
    for j in 0..columns {
        let alpha = q[(j, j)];
        let (mut pivots, mut below) = q.view_mut().split_at(ndarray::Axis(0), j + 1);
        let mut tail = below.column_mut(j);
        if tail.iter().all(R::is_zero) {
            negative.push(alpha.is_sign_negative());
            continue;
        }
        let sign = if alpha.is_sign_negative() { R::one() } else { -R::one() };
        negative.push(sign < R::zero());
        tail.mapv_inplace(|x| x / (alpha - sign));
        let (left, mut right) = below.multi_slice_mut((s![.., j], s![.., j + 1..]));
        let pivot = pivots.slice_mut(s![j, j + 1..]);
        for (&y, mut row) in left.iter().zip(right.rows_mut()) {
            Zip::from(&mut row).and(&pivot).for_each(|x, &u| *x -= y * u);
        }
    }
    negative
}
