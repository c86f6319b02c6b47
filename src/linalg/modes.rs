//! Tensors along one dimension (a *mode*) at a time: Gram matrices and products.

use super::backend::Backend;
use super::functions::{add_gram_left, add_gram_right};
use super::layout::mirror_lower;
use crate::error::Result;
use crate::numeric::Real;
use ndarray::{Array2, ArrayD, ArrayRef2, ArrayView2, ArrayViewD, ArrayViewMut2};

/// The Gram matrix of a mode: M Mᵀ, where M has dimension `axis` of `x` as its rows and all others as
/// its columns.
///
/// `x`: any number of dimensions. Returns d × d for d = `x.shape()[axis]`, exactly symmetric; for a
/// matrix these are X Xᵀ (mode 0) and Xᵀ X (mode 1).
///
/// NaN and infinity propagate.
///
/// # Errors
/// As [`add_gram_left`].
///
/// # Examples
/// ```
/// use eigenstep::linalg::mode_gram;
/// use ndarray::array;
///
/// let x = array![[1.0, 2.0], [0.0, 3.0]].into_dyn();
/// assert_eq!(mode_gram(&x.view(), 0)?, array![[5.0, 6.0], [6.0, 9.0]]);
/// assert_eq!(mode_gram(&x.view(), 1)?, array![[1.0, 2.0], [2.0, 13.0]]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn mode_gram<R: Real>(x: &ArrayViewD<'_, R>, axis: usize) -> Result<Array2<R>> {
    let (_, size, _) = parts(x.shape(), axis);
    let mut gram = Array2::zeros((size, size));
    let contiguous = x.as_standard_layout();
    let slice = contiguous.as_slice().unwrap_or_default();
    add_gram(slice, x.shape(), axis, (R::zero(), R::one()), &mut gram)?;
    Ok(mirror_lower(gram))
}

/// A tensor times a matrix along a mode: `y[.., j, ..] = Σₖ P[j, k]·x[.., k, ..]`.
///
/// `p`: d × d for d = `x.shape()[axis]`; a matrix of another shape leaves the tensor as it is. For
/// matrices these are P X (mode 0) and X Pᵀ (mode 1).
///
/// # Examples
/// ```
/// use eigenstep::linalg::mode_product;
/// use ndarray::array;
///
/// let x = array![[1.0, 2.0], [3.0, 4.0]].into_dyn();
/// let y = mode_product(&array![[2.0, 0.0], [0.0, 1.0]], 0, &x.view());
/// assert_eq!(y, array![[2.0, 4.0], [3.0, 4.0]].into_dyn());
/// ```
pub fn mode_product<R: Real>(p: &ArrayRef2<R>, axis: usize, x: &ArrayViewD<'_, R>) -> ArrayD<R> {
    let mut product = x.as_standard_layout().into_owned();
    let (_, size, _) = parts(x.shape(), axis);
    if let Some(slice) = product.as_slice_mut().filter(|_| p.dim() == (size, size)) {
        let mut spare = vec![R::zero(); slice.len()];
        multiply(slice, &mut spare, x.shape(), |mode| (mode == axis).then(|| p.t()));
    }
    product
}

/// Elements before dimension `axis`, along it, and behind it.
fn parts(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    let product = |dims: Option<&[usize]>| dims.unwrap_or_default().iter().product();
    (
        product(shape.get(..axis)),
        shape.get(axis).copied().unwrap_or(1),
        product(shape.get(axis + 1..)),
    )
}

/// `x ← x ×ᵢ Mᵢᵀ` over all dimensions i that have a matrix: `x[.., j, ..] ← Σₖ x[.., k, ..]·M[k, j]`.
/// `spare`: a scratch buffer of as many elements.
pub(crate) fn multiply<'m, R: Real>(
    x: &mut [R],
    spare: &mut [R],
    shape: &[usize],
    matrix: impl Fn(usize) -> Option<ArrayView2<'m, R>>,
) {
    let (mut from, mut to, mut swapped) = (x, spare, false);
    for axis in 0..shape.len() {
        let Some(matrix) = matrix(axis) else { continue };
        product(from, parts(shape, axis), &matrix, to);
        std::mem::swap(&mut from, &mut to);
        swapped = !swapped;
    }
    if swapped {
        to.copy_from_slice(from);
    }
}

fn product<R: Real>(
    x: &[R],
    (before, size, after): (usize, usize, usize),
    matrix: &ArrayView2<'_, R>,
    out: &mut [R],
) {
    let times = |a: ArrayView2<'_, R>, b: ArrayView2<'_, R>, out: ArrayViewMut2<'_, R>| {
        Backend::default().product((R::one(), a), b, (R::zero(), out));
    };
    if after == 1 {
        let x = ArrayView2::from_shape((before, size), x);
        let out = ArrayViewMut2::from_shape((before, size), out);
        if let (Ok(x), Ok(out)) = (x, out) {
            times(x, matrix.view(), out);
        }
        return;
    }
    let slab = (size * after).max(1);
    for (x, out) in x.chunks_exact(slab).zip(out.chunks_exact_mut(slab)) {
        let x = ArrayView2::from_shape((size, after), x);
        let out = ArrayViewMut2::from_shape((size, after), out);
        if let (Ok(x), Ok(out)) = (x, out) {
            times(matrix.t(), x, out);
        }
    }
}

/// `C ← old·C + new·(x, x)`, contracted over all dimensions but `axis`; the lower triangle.
pub(crate) fn add_gram<R: Real>(
    x: &[R],
    shape: &[usize],
    axis: usize,
    weights: (R, R),
    c: &mut Array2<R>,
) -> Result<()> {
    let (before, size, after) = parts(shape, axis);
    if before == 1 {
        let x = ArrayView2::from_shape((size, after), x);
        return x.map_or(Ok(()), |x| add_gram_left(&x, weights, c));
    }
    if after == 1 {
        let x = ArrayView2::from_shape((before, size), x);
        return x.map_or(Ok(()), |x| add_gram_right(&x, weights, c));
    }
    // the dimension first, all others behind it
    let slabs = || x.chunks_exact((size * after).max(1));
    let row = |index: usize| {
        let part = index * after..(index + 1) * after;
        slabs().filter_map(move |slab| slab.get(part.clone())).flatten().copied()
    };
    let rows: Vec<R> = (0..size).flat_map(row).collect();
    let rows = ArrayView2::from_shape((size, before * after), &rows);
    rows.map_or(Ok(()), |rows| add_gram_left(&rows, weights, c))
}

/// Reorders dimension `axis`: index `i` of the result is index `order[i]` of `x`.
pub(crate) fn permute<R: Real>(x: &mut [R], shape: &[usize], axis: usize, order: &[usize]) {
    let (_, size, after) = parts(shape, axis);
    let slab = (size * after).max(1);
    let mut old = vec![R::zero(); slab.min(x.len())];
    for x in x.chunks_exact_mut(slab) {
        old.copy_from_slice(x);
        for (to, &from) in x.chunks_exact_mut(after.max(1)).zip(order) {
            if let Some(from) = old.chunks_exact(after.max(1)).nth(from) {
                to.copy_from_slice(from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

    use super::*;
    use ndarray::{Array3, Axis, array};

    /// Every dimension against tensors written out with ndarray.
    #[test]
    fn every_dimension_is_multiplied_measured_and_reordered() {
        let x = Array3::from_shape_fn((2, 3, 4), |(i, j, k)| (1 + i * 12 + j * 4 + k) as f64);
        let shape = [2, 3, 4];
        for axis in 0..3 {
            let n = shape[axis];
            let m = Array2::from_shape_fn((n, n), |(i, j)| (i * n + j) as f64 - 1.5);
            let mut multiplied = x.clone();
            for (mut out, lane) in
                multiplied.lanes_mut(Axis(axis)).into_iter().zip(x.lanes(Axis(axis)))
            {
                out.assign(&m.t().dot(&lane));
            }
            let mut found = x.as_slice().unwrap().to_vec();
            let mut spare = vec![0.0; found.len()];
            multiply(&mut found, &mut spare, &shape, |i| (i == axis).then(|| m.view()));
            assert_eq!(found, multiplied.as_slice().unwrap());

            let mut gram = Array2::zeros((n, n));
            for lane in x.lanes(Axis(axis)) {
                gram += &Array2::from_shape_fn((n, n), |(i, j)| lane[i] * lane[j]);
            }
            let mut found = Array2::zeros((n, n));
            let x_slice = x.as_slice().unwrap();
            add_gram(x_slice, &shape, axis, (0.0, 1.0), &mut found).unwrap();
            assert_eq!(mirror_lower(found), gram);

            let order: Vec<usize> = (0..n).rev().collect();
            let mut found = x.as_slice().unwrap().to_vec();
            permute(&mut found, &shape, axis, &order);
            let expected = x.select(Axis(axis), &order);
            assert!(found.iter().eq(expected.iter()));
        }
        // two matrices end where the tensor was
        let (a, b) = (array![[0.0, 1.0], [1.0, 0.0]], array![[2.0, 0.0], [0.0, 3.0]]);
        let mut x = vec![1.0, 2.0, 3.0, 4.0];
        multiply(&mut x, &mut [0.0; 4], &[2, 2], |i| {
            Some(if i == 0 { a.view() } else { b.view() })
        });
        assert_eq!(x, [6.0, 12.0, 2.0, 6.0]);
    }
}
