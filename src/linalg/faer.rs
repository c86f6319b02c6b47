//! Decompositions by faer, on one thread; products on as many as there are.
//!
//! Large products are cut at places that only their shape decides, so threads do not change a bit.
//!
//! faer splits its vector loops at multiples of the vector width in memory, so its sums depend on
//! where a matrix happens to lie. Decompositions therefore work on copies that faer allocates,
//! which are always aligned alike: identical numbers give identical bits. Gram products have no
//! such sums and read the caller's memory.
//!
//! faer's eigenvalue iteration can give up on matrices whose entries span more than the digits of
//! the number type; the native one then takes over.

use super::backend::Triangle;
use super::layout::{from_columns, transpose_parts, write};
use super::native::Native;
use super::routines::{NOT_POSITIVE, Outcome, Routines};
use crate::kernel::parallel;
use crate::numeric::Real;
use ::faer::dyn_stack::{MemBuffer, MemStack};
use ::faer::linalg::matmul::{self, triangular, triangular::BlockStructure};
use ::faer::linalg::{
    cholesky::llt::factor as llt, evd, householder, qr::no_pivoting::factor as qr,
};
use ::faer::linalg::{svd, triangular_solve};
use ::faer::prelude::default;
use ::faer::traits::RealField;
use ::faer::{Accum, Col, Conj, Mat, MatMut, MatRef, Par};
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2};
use num_traits::Float;

/// A product with a dimension below this is left to the native routine.
const THIN: usize = 32;

/// The backend over faer.
pub(super) struct Faer;

impl<R: Real + RealField> Routines<R> for Faer {
    fn eigh(&self, a: Array2<R>) -> Outcome<(Array1<R>, Array2<R>)> {
        eigh(a.view()).map_or_else(|| Native.eigh(a), Ok)
    }

    fn qr(&self, a: ArrayView2<'_, R>) -> Outcome<(Array2<R>, Array2<R>)> {
        let (m, n) = a.dim();
        let k = m.min(n);
        let block = qr::recommended_block_size::<R>(m, n);
        let mut factors = aligned(a);
        let mut coefficients = Mat::<R>::zeros(block, k);
        let scratch = qr::qr_in_place_scratch::<R>(m, n, block, Par::Seq, default());
        qr::qr_in_place(
            factors.as_mut(),
            coefficients.as_mut(),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(scratch)),
            default(),
        );
        let mut r = array(factors.as_ref().subrows(0, k));
        for (i, mut row) in r.rows_mut().into_iter().enumerate() {
            row.iter_mut().take(i).for_each(|below| *below = R::zero());
        }
        let q = accumulated(factors.as_ref().subcols(0, k), coefficients.as_ref());
        Ok((array(q.as_ref()), r))
    }

    fn cholesky(&self, a: ArrayView2<'_, R>) -> Outcome<Array2<R>> {
        let n = a.nrows();
        let mut l = aligned(a);
        let scratch = llt::cholesky_in_place_scratch::<R>(n, Par::Seq, default());
        llt::cholesky_in_place(
            l.as_mut(),
            default(),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(scratch)),
            default(),
        )
        .map_err(|_| NOT_POSITIVE)?;
        let mut l = array(l.as_ref());
        for (i, mut row) in l.rows_mut().into_iter().enumerate() {
            row.iter_mut().skip(i + 1).for_each(|above| *above = R::zero());
        }
        Ok(l)
    }

    fn svd(&self, a: ArrayView2<'_, R>) -> Outcome<(Array2<R>, Array1<R>, Array2<R>)> {
        svd(a).map_or_else(|| Native.svd(a), Ok)
    }

    fn add_lower(
        &self,
        a: ArrayView2<'_, R>,
        b: ArrayView2<'_, R>,
        (old, new): (R, R),
        mut c: ArrayViewMut2<'_, R>,
    ) {
        let n = c.nrows();
        let Some(c) = c.as_slice_mut() else { return Native.add_lower(a, b, (old, new), c) };
        c.iter_mut().for_each(|x| *x *= old);
        add_lower(MatMut::from_row_major_slice_mut(c, n, n), new, view(a), view(b));
    }

    fn product(
        &self,
        (alpha, a): (R, ArrayView2<'_, R>),
        b: ArrayView2<'_, R>,
        (beta, mut c): (R, ArrayViewMut2<'_, R>),
    ) {
        let (rows, columns) = c.dim();
        let smallest = rows.min(columns).min(a.ncols());
        // thin products are sums along vectors, whose order depends on where they lie
        let c = match c.as_slice_mut() {
            Some(slice) if smallest >= THIN => slice,
            _ => return Native.product((alpha, a), b, (beta, c)),
        };
        let accumulate = if beta == R::zero() { Accum::Replace } else { Accum::Add };
        if beta != R::zero() && beta != R::one() {
            c.iter_mut().for_each(|x| *x *= beta);
        }
        let c = MatMut::from_row_major_slice_mut(c, rows, columns);
        // the order of its sums depends on the layout: they are all made row-major
        let (a, b) = (a.as_standard_layout(), b.as_standard_layout());
        multiply(c, accumulate, alpha, view(a.view()), view(b.view()));
    }

    fn solve_triangular(
        &self,
        a: ArrayView2<'_, R>,
        triangle: Triangle,
        b: Array2<R>,
    ) -> Outcome<Array2<R>> {
        if b.ncols() == 1 {
            // a copy of the matrix would take longer
            return Native.solve_triangular(a, triangle, b);
        }
        let (a, mut x) = (aligned(a), aligned(b.view()));
        match triangle {
            Triangle::Lower => {
                triangular_solve::solve_lower_triangular_in_place(a.as_ref(), x.as_mut(), Par::Seq)
            }
            Triangle::Upper => {
                triangular_solve::solve_upper_triangular_in_place(a.as_ref(), x.as_mut(), Par::Seq)
            }
        }
        Ok(array(x.as_ref()))
    }
}

/// Columns from which on a product is cut: each half then packs the left factor once more, which costs
/// little compared with at least 256 columns.
const CUT_COLUMNS: usize = 512;
/// Multiplications from which on half of a product is worth waking a thread.
const CUT_WORK: usize = 1 << 24;

/// Where a product of `rows`·`inner` multiplications per column is cut into two.
fn cut(columns: usize, rows: usize, inner: usize) -> Option<usize> {
    let work = columns.saturating_mul(rows).saturating_mul(inner);
    // whole vectors on the left
    (columns >= CUT_COLUMNS && work >= CUT_WORK).then(|| (columns / 2).next_multiple_of(16))
}

/// α A B, added to C or in its place.
fn multiply<R: Real + RealField>(
    c: MatMut<'_, R>,
    accumulate: Accum,
    alpha: R,
    a: MatRef<'_, R>,
    b: MatRef<'_, R>,
) {
    let Some(middle) = cut(c.ncols(), c.nrows(), a.ncols()) else {
        return matmul::matmul(c, accumulate, a, b, alpha, Par::Seq);
    };
    let (left, right) = c.split_at_col_mut(middle);
    let (b_left, b_right) = b.split_at_col(middle);
    parallel::join(
        || multiply(left, accumulate, alpha, a, b_left),
        || multiply(right, accumulate, alpha, a, b_right),
    );
}

/// The lower triangle of C + α A B.
fn add_lower<R: Real + RealField>(c: MatMut<'_, R>, alpha: R, a: MatRef<'_, R>, b: MatRef<'_, R>) {
    let Some(middle) = cut(c.ncols(), c.nrows(), a.ncols()) else {
        return triangular::matmul(
            c,
            BlockStructure::TriangularLower,
            Accum::Add,
            a,
            BlockStructure::Rectangular,
            b,
            BlockStructure::Rectangular,
            alpha,
            Par::Seq,
        );
    };
    let (first, _, below, second) = c.split_at_mut(middle, middle);
    let (a_first, a_second) = a.split_at_row(middle);
    let (b_first, b_second) = b.split_at_col(middle);
    parallel::join(
        || multiply(below, Accum::Add, alpha, a_second, b_first),
        || {
            parallel::join(
                || add_lower(first, alpha, a_first, b_first),
                || add_lower(second, alpha, a_second, b_second),
            );
        },
    );
}

/// The first columns of the product of reflectors, block by block from the last: columns on the left of
/// a block are still those of the identity, and not touched.
fn accumulated<R: Real + RealField>(
    reflectors: MatRef<'_, R>,
    coefficients: MatRef<'_, R>,
) -> Mat<R> {
    let (m, k) = reflectors.shape();
    let block = coefficients.nrows();
    let mut q = Mat::<R>::identity(m, k);
    let scratch =
        householder::apply_block_householder_on_the_left_in_place_scratch::<R>(m, block, k);
    let mut scratch = MemBuffer::new(scratch);
    for start in (0..k).step_by(block).rev() {
        let width = block.min(k - start);
        householder::apply_block_householder_on_the_left_in_place_with_conj(
            reflectors.submatrix(start, start, m - start, width),
            coefficients.submatrix(0, start, width, width),
            Conj::No,
            q.as_mut().submatrix_mut(start, start, m - start, k - start),
            Par::Seq,
            MemStack::new(&mut scratch),
        );
    }
    q
}

/// `None` where faer's iteration gives up.
fn eigh<R: Real + RealField>(a: ArrayView2<'_, R>) -> Option<(Array1<R>, Array2<R>)> {
    let n = a.nrows();
    let a = view(a.t()).to_owned(); // a matrix is its own transpose here, and that lies right
    let mut values = Col::<R>::zeros(n);
    let mut vectors = Mat::<R>::zeros(n, n);
    let compute = evd::ComputeEigenvectors::Yes;
    let scratch = evd::self_adjoint_evd_scratch::<R>(n, compute, Par::Seq, default());
    evd::self_adjoint_evd(
        a.as_ref(),
        values.as_diagonal_mut(),
        Some(vectors.as_mut()),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        default(),
    )
    .ok()?;
    finite(&values).then(|| (values.iter().copied().collect(), array(vectors.as_ref())))
}

/// `None` where faer's iteration gives up.
fn svd<R: Real + RealField>(a: ArrayView2<'_, R>) -> Option<(Array2<R>, Array1<R>, Array2<R>)> {
    let (m, n) = a.dim();
    let k = m.min(n);
    let a = aligned(a);
    let mut s = Col::<R>::zeros(k);
    let (mut u, mut v) = (Mat::<R>::zeros(m, k), Mat::<R>::zeros(n, k));
    let thin = svd::ComputeSvdVectors::Thin;
    let scratch = svd::svd_scratch::<R>(m, n, thin, thin, Par::Seq, default());
    svd::svd(
        a.as_ref(),
        s.as_diagonal_mut(),
        Some(u.as_mut()),
        Some(v.as_mut()),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        default(),
    )
    .ok()?;
    finite(&s).then(|| (array(u.as_ref()), s.iter().copied().collect(), array(v.transpose())))
}

fn finite<R: Real + RealField>(xs: &Col<R>) -> bool {
    xs.iter().all(|&x| Float::is_finite(x))
}

/// A copy, column by column, whose alignment does not depend on where the original lies.
fn aligned<R: Real + RealField>(a: ArrayView2<'_, R>) -> Mat<R> {
    let (rows, columns) = a.dim();
    let Some(entries) = a.as_slice() else { return view(a).to_owned() };
    let mut copy = Mat::zeros(rows, columns);
    let row = |i: usize| entries.get(i * columns..).unwrap_or_default();
    transpose_parts((columns, rows), row, |j, start, part| {
        if let Some(column) = copy.col_mut(j).try_as_col_major_mut() {
            write(column.as_slice_mut(), start, part);
        }
    });
    copy
}

fn array<R: Real + RealField>(a: MatRef<'_, R>) -> Array2<R> {
    if a.row_stride() != 1 {
        return Array2::from_shape_fn(a.shape(), |(i, j)| a[(i, j)]);
    }
    let column = |j| a.col(j).try_as_col_major().map(|column| column.as_slice());
    from_columns(a.shape(), |j| column(j).unwrap_or_default())
}

/// The same matrix, in the same memory, as faer sees it.
#[allow(unsafe_code)] // the one place where ndarray's memory becomes faer's
fn view<R: Real + RealField>(a: ArrayView2<'_, R>) -> MatRef<'_, R> {
    let (rows, cols) = a.dim();
    let &[row_stride, col_stride] = a.strides() else {
        return MatRef::from_row_major_slice(&[], 0, 0); // an Ix2 view has two strides
    };
    // SAFETY: ndarray guarantees for a live view that element (i, j), i < rows, j < cols, lies at
    // ptr + i·row_stride + j·col_stride in units of elements, strides of any sign, inside one
    // allocation that is initialised and not written to for the lifetime of the view; that is what
    // `from_raw_parts` asks for. The result carries the lifetime and only reads.
    unsafe { MatRef::from_raw_parts(a.as_ptr(), rows, cols, row_stride, col_stride) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Axis, s};

    /// Element (i, j) of `a` is element (i, j) of its faer view, and the memory is the same.
    fn same(a: ArrayView2<'_, f64>) {
        let b = view(a);
        assert_eq!(b.shape(), a.dim());
        for ((i, j), x) in a.indexed_iter() {
            assert!(std::ptr::eq(x, &b[(i, j)]), "element ({i}, {j}) of {a:?}");
        }
    }

    #[test]
    fn views_of_every_kind_read_the_right_elements() {
        let a = Array2::from_shape_fn((5, 7), |(i, j)| (10 * i + j) as f64);
        same(a.view());
        same(a.t());
        same(a.slice(s![1..4, 2..6]));
        same(a.slice(s![..;2, ..;3]));
        same(a.slice(s![..;-1, ..]));
        same(a.slice(s![.., ..;-1]));
        same(a.slice(s![..;-2, 1..;-3]).reversed_axes());
        same(a.slice(s![2..3, ..]));
        same(a.slice(s![.., 4..5]));
        same(a.row(2).insert_axis(Axis(0)));
        same(a.column(2).insert_axis(Axis(1)));
        same(a.slice(s![3..3, ..]));
        same(Array2::zeros((0, 0)).view());
        let row = a.slice(s![1..2, ..]);
        if let Some(repeated) = row.broadcast((4, 7)) {
            same(repeated);
        }
    }
}
