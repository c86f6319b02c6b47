//! Tensors seen along one dimension, the *mode*, at a time.

use super::{gram_left, gram_right};
use crate::numeric::Real;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayRef2, ArrayView3, ArrayViewD, ArrayViewMut3, ArrayViewMutD, Axis, Ix2};

/// The Gram matrix of a mode: M Mᵀ, where M has dimension `axis` of `x` as its rows and all others
/// as its columns.
///
/// `x`: any number of dimensions. Returns d × d for d = `x.shape()[axis]`, exactly symmetric; for
/// a matrix these are X Xᵀ (mode 0) and Xᵀ X (mode 1). Without such a dimension it is 0 × 0.
///
/// # Examples
/// ```
/// use eigenstep::linalg::mode_gram;
/// use ndarray::array;
///
/// let x = array![[1.0, 2.0], [0.0, 3.0]].into_dyn();
/// assert_eq!(mode_gram(&x.view(), 0), array![[5.0, 6.0], [6.0, 9.0]]);
/// assert_eq!(mode_gram(&x.view(), 1), array![[1.0, 2.0], [2.0, 13.0]]);
/// ```
pub fn mode_gram<R: Real>(x: &ArrayViewD<'_, R>, axis: usize) -> Array2<R> {
    let (before, d, behind) = extents(x.shape(), axis);
    let x = x.as_standard_layout();
    let Ok(x) = ArrayView3::from_shape((before, d, behind), x.as_slice().unwrap_or_default())
    else {
        return Array2::zeros((0, 0));
    };
    match (before, behind) {
        (1, _) => gram_left(&x.index_axis(Axis(0), 0)),
        (_, 1) => gram_right(&x.index_axis(Axis(2), 0)),
        _ => {
            let rows: Vec<R> = x.permuted_axes([1, 0, 2]).iter().copied().collect();
            let rows = Array2::from_shape_vec((d, before * behind), rows);
            rows.map_or_else(|_| Array2::zeros((0, 0)), |rows| gram_left(&rows))
        }
    }
}

/// Multiplies a tensor by a matrix along a mode.
///
/// `p`: d × d for d = `x.shape()[axis]`; `out`: of the shape of `x`, and in row-major order unless it
/// is a matrix. The last of several modes is multiplied from the right, X P, all others from the
/// left, P X: a matrix that is symmetric only up to its rounding to few bits is used as it is
/// stored, on both sides. What does not fit leaves `out` as it is.
///
/// # Examples
/// ```
/// use eigenstep::linalg::mode_product;
/// use ndarray::{ArrayD, array};
///
/// let x = array![[1.0, 2.0], [3.0, 4.0]].into_dyn();
/// let mut out = ArrayD::zeros(vec![2, 2]);
/// mode_product(&array![[2.0, 0.0], [0.0, 1.0]], 0, &x.view(), out.view_mut());
/// assert_eq!(out, array![[2.0, 4.0], [3.0, 4.0]].into_dyn());
/// ```
pub fn mode_product<R: Real>(
    p: &ArrayRef2<R>,
    axis: usize,
    x: &ArrayViewD<'_, R>,
    mut out: ArrayViewMutD<'_, R>,
) {
    let (before, d, behind) = extents(x.shape(), axis);
    if p.dim() != (d, d) || x.shape() != out.shape() {
        return;
    }
    // matrices of any layout in place
    let matrices =
        (x.view().into_dimensionality::<Ix2>(), out.view_mut().into_dimensionality::<Ix2>());
    if let (Ok(x), Ok(mut out)) = matrices {
        return match axis {
            0 => general_mat_mul(R::one(), p, &x, R::zero(), &mut out),
            _ => general_mat_mul(R::one(), &x, p, R::zero(), &mut out),
        };
    }
    let x = x.as_standard_layout();
    let (Some(x), Some(slice)) = (x.as_slice(), out.as_slice_mut()) else { return };
    let shape = (before, d, behind);
    let (x, out) = (ArrayView3::from_shape(shape, x), ArrayViewMut3::from_shape(shape, slice));
    let (Ok(x), Ok(mut out)) = (x, out) else { return };
    if behind == 1 && before > 1 {
        let (x, mut out) = (x.index_axis(Axis(2), 0), out.index_axis_mut(Axis(2), 0));
        return general_mat_mul(R::one(), &x, p, R::zero(), &mut out);
    }
    for (x, mut out) in x.outer_iter().zip(out.outer_iter_mut()) {
        general_mat_mul(R::one(), p, &x, R::zero(), &mut out);
    }
}

/// Number of elements per index of the dimensions before `axis`, its size, and that of all behind.
fn extents(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    let before = shape.iter().take(axis).product();
    let behind = shape.iter().skip(axis + 1).product();
    (before, shape.get(axis).copied().unwrap_or(0), behind)
}
