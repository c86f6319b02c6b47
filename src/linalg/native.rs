//! Decompositions in plain Rust: always compiled, without dependencies, and a check of the other backends.
//!
//! Everything works on rows of contiguous memory; where an algorithm speaks of columns, the
//! transposed matrix is stored.
#![allow(clippy::indexing_slicing)] // the algorithms are statements about index ranges

use super::backend::Triangle;
use super::routines::{NO_CONVERGENCE, NOT_POSITIVE, Outcome, Routines};
use super::scale::{reciprocal_power_of_two, sorted};
use crate::numeric::Real;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView2, Axis, s};

/// The backend without dependencies.
pub(super) struct Native;

impl<R: Real> Routines<R> for Native {
    fn eigh(&self, a: Array2<R>) -> Outcome<(Array1<R>, Array2<R>)> {
        let mut a = Rows::of(a.view());
        let Tridiagonal { mut diagonal, mut coupling, taus } = tridiagonalize(&mut a);
        let mut vectors = accumulate(&a, &taus);
        implicit_ql(&mut diagonal, &mut coupling, &mut vectors)?;
        Ok((Array1::from(diagonal), vectors.transposed()))
    }

    fn qr(&self, a: ArrayView2<'_, R>) -> Outcome<(Array2<R>, Array2<R>)> {
        let (q, r) = householder_qr(Rows::of(a.t()));
        Ok((q.transposed(), r))
    }

    fn cholesky(&self, a: ArrayView2<'_, R>) -> Outcome<Array2<R>> {
        let n = a.nrows();
        let mut l = Array2::zeros((n, n));
        let mut rows = Rows::zeros(n, n);
        for i in 0..n {
            let (above, row) = rows.split(i);
            for j in 0..i {
                let upper = &above[j * n..j * n + n];
                row[j] = (a[[i, j]] - dot(&row[..j], &upper[..j])) / upper[j];
                l[[i, j]] = row[j];
            }
            let pivot = a[[i, i]] - dot(&row[..i], &row[..i]);
            if pivot.is_nan() || pivot <= R::zero() {
                return Err(NOT_POSITIVE);
            }
            row[i] = pivot.sqrt();
            l[[i, i]] = row[i];
        }
        Ok(l)
    }

    fn svd(&self, a: ArrayView2<'_, R>) -> Outcome<(Array2<R>, Array1<R>, Array2<R>)> {
        if a.nrows() < a.ncols() {
            let (v, s, ut) = jacobi_svd(a.reversed_axes())?;
            return Ok((ut.reversed_axes(), s, v.reversed_axes()));
        }
        jacobi_svd(a)
    }

    fn solve_triangular(
        &self,
        a: ArrayView2<'_, R>,
        triangle: Triangle,
        b: Array2<R>,
    ) -> Outcome<Array2<R>> {
        let n = b.nrows();
        if b.ncols() == 1 {
            return Ok(substituted(a, triangle, b));
        }
        let mut x = Rows::of(b.view());
        for step in 0..n {
            let (i, solved) = match triangle {
                Triangle::Lower => (step, 0..step),
                Triangle::Upper => (n - 1 - step, n - step..n),
            };
            for j in solved {
                let (row_i, row_j) = x.pair(i, j);
                add_scaled(row_i, -a[[i, j]], row_j);
            }
            x.row_mut(i).iter_mut().for_each(|x| *x /= a[[i, i]]);
        }
        Ok(x.array())
    }
}

/// The solution for one column: what the elements before have in common with a row is taken off at once,
/// or, where columns lie together in memory, each element from all that follow.
fn substituted<R: Real>(a: ArrayView2<'_, R>, triangle: Triangle, mut b: Array2<R>) -> Array2<R> {
    let n = b.nrows();
    let mut x = b.column_mut(0);
    let by_columns = a.t().is_standard_layout();
    for step in 0..n {
        let (i, solved, open) = match triangle {
            Triangle::Lower => (step, 0..step, step + 1..n),
            Triangle::Upper => (n - 1 - step, n - step..n, 0..n - 1 - step),
        };
        if !by_columns {
            let terms = a.slice(s![i, solved.clone()]);
            x[i] = terms.iter().zip(x.slice(s![solved])).fold(x[i], |rest, (&a, &x)| rest - a * x);
        }
        x[i] /= a[[i, i]];
        if by_columns {
            let found = x[i];
            let terms = a.slice(s![open.clone(), i]);
            x.slice_mut(s![open]).zip_mut_with(&terms, |x, &a| *x -= a * found);
        }
    }
    b
}

/// A row-major matrix without gaps that lends several rows at once.
struct Rows<R> {
    data: Vec<R>,
    cols: usize,
}

impl<R: Real> Rows<R> {
    fn of(a: ArrayView2<'_, R>) -> Self {
        Rows { cols: a.ncols(), data: a.iter().copied().collect() }
    }

    fn zeros(rows: usize, cols: usize) -> Self {
        Rows { cols, data: vec![R::zero(); rows * cols] }
    }

    /// The first `rows` rows of the identity of order `cols`.
    fn identity(rows: usize, cols: usize) -> Self {
        let mut result = Rows::zeros(rows, cols);
        (0..rows).for_each(|i| result.row_mut(i)[i] = R::one());
        result
    }

    fn len(&self) -> usize {
        self.data.len() / self.cols
    }

    fn row(&self, i: usize) -> &[R] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }

    fn row_mut(&mut self, i: usize) -> &mut [R] {
        &mut self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// All rows before row `i`, and row `i`.
    fn split(&mut self, i: usize) -> (&[R], &mut [R]) {
        let (before, rest) = self.data.split_at_mut(i * self.cols);
        (before, &mut rest[..self.cols])
    }

    /// Rows `i` and `j`, which differ.
    fn pair(&mut self, i: usize, j: usize) -> (&mut [R], &mut [R]) {
        let cols = self.cols;
        let (first, second) = self.data.split_at_mut(i.max(j) * cols);
        let low = &mut first[i.min(j) * cols..][..cols];
        let high = &mut second[..cols];
        if i < j { (low, high) } else { (high, low) }
    }

    /// (xᵢ, xⱼ) ← (c xᵢ − s xⱼ, s xᵢ + c xⱼ)
    fn rotate(&mut self, i: usize, j: usize, (c, s): (R, R)) {
        let (row_i, row_j) = self.pair(i, j);
        for (x, y) in row_i.iter_mut().zip(row_j) {
            (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
        }
    }

    fn picked(&self, order: &[usize]) -> Self {
        let data = order.iter().flat_map(|&i| self.row(i).iter().copied()).collect();
        Rows { data, cols: self.cols }
    }

    fn array(&self) -> Array2<R> {
        Array2::from_shape_fn((self.len(), self.cols), |(i, j)| self.data[i * self.cols + j])
    }

    fn transposed(&self) -> Array2<R> {
        Array2::from_shape_fn((self.cols, self.len()), |(i, j)| self.data[j * self.cols + i])
    }
}

/// xᵀ y in eight interleaved partial sums: the compiler may not reorder a single one, and the
/// order must not depend on the machine.
fn dot<R: Real>(x: &[R], y: &[R]) -> R {
    const LANES: usize = 8;
    let (x_blocks, x_rest) = x.as_chunks::<LANES>();
    let (y_blocks, y_rest) = y.as_chunks::<LANES>();
    let mut lanes = [R::zero(); LANES];
    for (x, y) in x_blocks.iter().zip(y_blocks) {
        for (lane, (&x, &y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
            *lane += x * y;
        }
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    let rest: R = x_rest.iter().zip(y_rest).map(|(&x, &y)| x * y).sum();
    (((a + e) + (c + g)) + ((b + f) + (d + h))) + rest
}

/// y ← y + α x
fn add_scaled<R: Real>(y: &mut [R], alpha: R, x: &[R]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y += alpha * x);
}

fn largest<R: Real>(xs: &[R]) -> R {
    xs.iter().fold(R::zero(), |m, &x| if x.abs() > m { x.abs() } else { m })
}

/// √(x² + y²) without overflow or loss by underflow; `Float::hypot` would depend on the system's
/// mathematical library.
fn hypot<R: Real>(x: R, y: R) -> R {
    let (x, y) = (x.abs(), y.abs());
    let (large, small) = if x < y { (y, x) } else { (x, y) };
    let square = x * x + y * y;
    // the plain formula rounds less, and rotations accumulate its error
    let harmless = R::min_positive_value() / R::epsilon();
    if (square > harmless && square.is_finite()) || large == R::zero() {
        return square.sqrt();
    }
    let ratio = small / large;
    large * (R::one() + ratio * ratio).sqrt()
}

/// The reflector H = I − τ v vᵀ with v₁ = 1 and H x = β e₁; overwrites x by v, returns (β, τ).
///
/// Golub & Van Loan, Matrix Computations, 4th ed., section 5.1.3. `x` is scaled to unit size by a
/// power of two first: with squares lost to underflow, H would not be orthogonal.
fn reflector<R: Real>(x: &mut [R]) -> (R, R) {
    let alpha = x[0];
    let tail = largest(&x[1..]);
    if tail == R::zero() {
        x[0] = R::one();
        return (alpha, R::zero());
    }
    let scale = reciprocal_power_of_two(if tail > alpha.abs() { tail } else { alpha.abs() });
    x.iter_mut().for_each(|x| *x *= scale);
    let alpha = x[0];
    let norm = dot(x, x).sqrt();
    // the sign opposite to α: no cancellation in α − β
    let beta = if alpha > R::zero() { -norm } else { norm };
    let pivot = alpha - beta;
    x.iter_mut().for_each(|x| *x /= pivot);
    x[0] = R::one();
    (beta / scale, -pivot / beta)
}

/// x ← (I − τ v vᵀ) x
fn reflect<R: Real>(x: &mut [R], v: &[R], tau: R) {
    if tau != R::zero() {
        let projection = tau * dot(v, x);
        add_scaled(x, -projection, v);
    }
}

/// T = Qᵀ A Q: its diagonal, the entries next to it, and the factors τ of Q's reflectors.
struct Tridiagonal<R> {
    diagonal: Vec<R>,
    /// `coupling[k]` stands between k and k + 1; the last one is zero.
    coupling: Vec<R>,
    taus: Vec<R>,
}

/// Householder reduction of a symmetric matrix (Golub & Van Loan, algorithm 8.3.1).
///
/// Leaves the vector of reflector k in row k, right of the diagonal.
fn tridiagonalize<R: Real>(a: &mut Rows<R>) -> Tridiagonal<R> {
    let n = a.cols;
    let mut result = Tridiagonal {
        diagonal: Vec::with_capacity(n),
        coupling: vec![R::zero(); n],
        taus: vec![R::zero(); n],
    };
    for k in 0..n {
        result.diagonal.push(a.row(k)[k]);
        if k + 1 == n {
            break;
        }
        let mut v = a.row(k)[k + 1..].to_vec();
        let (beta, tau) = reflector(&mut v);
        result.coupling[k] = beta;
        result.taus[k] = tau;
        if tau != R::zero() {
            let mut w: Vec<R> = (k + 1..n).map(|i| tau * dot(&a.row(i)[k + 1..], &v)).collect();
            let shift = R::of(0.5) * tau * dot(&w, &v);
            add_scaled(&mut w, -shift, &v);
            for i in k + 1..n {
                let (v_i, w_i) = (v[i - k - 1], w[i - k - 1]);
                // v wᵀ + w vᵀ summed before subtracting: the matrix stays exactly symmetric
                for (x, (&v, &w)) in a.row_mut(i)[k + 1..].iter_mut().zip(v.iter().zip(&w)) {
                    *x -= v_i * w + w_i * v;
                }
            }
        }
        a.row_mut(k)[k + 1..].copy_from_slice(&v);
    }
    result
}

/// Qᵀ from the reflectors that [`tridiagonalize`] left in `a`, backwards so that only the trailing
/// block fills in.
fn accumulate<R: Real>(a: &Rows<R>, taus: &[R]) -> Rows<R> {
    let n = a.cols;
    let mut transposed = Rows::identity(n, n);
    for k in (0..n - 1).rev() {
        for i in k + 1..n {
            reflect(&mut transposed.row_mut(i)[k + 1..], &a.row(k)[k + 1..], taus[k]);
        }
    }
    transposed
}

/// Eigenvalues of a tridiagonal matrix by the implicit QL iteration with Wilkinson's shift; the
/// rotations go to the rows of `vectors` (Golub & Van Loan, section 8.3; EISPACK's `tql2`).
fn implicit_ql<R: Real>(d: &mut [R], e: &mut [R], vectors: &mut Rows<R>) -> Outcome<()> {
    let n = d.len();
    let (zero, one, two) = (R::zero(), R::one(), R::of(2.0));
    // relative to the whole matrix, not to the neighbours: every sweep brings rounding errors of
    // the large eigenvalues to the small ones, and a rank-deficient matrix would never settle
    let floor = R::epsilon() * (largest(d) + largest(e));
    for low in 0..n {
        let mut iterations = 0;
        loop {
            let high = (low..n - 1).find(|&m| e[m].abs() <= floor).unwrap_or(n - 1);
            if high == low {
                break;
            }
            iterations += 1;
            if iterations > 60 {
                return Err(NO_CONVERGENCE);
            }
            let slope = (d[low + 1] - d[low]) / (two * e[low]);
            let root = if slope < zero { -hypot(slope, one) } else { hypot(slope, one) };
            let mut g = d[high] - d[low] + e[low] / (slope + root);
            let (mut c, mut s, mut p) = (one, one, zero);
            let mut split = false;
            for i in (low..high).rev() {
                let (f, b) = (s * e[i], c * e[i]);
                let r = hypot(f, g);
                e[i + 1] = r;
                if r == zero {
                    // the bulge vanished: the matrix falls apart here, start again on the parts
                    d[i + 1] -= p;
                    e[high] = zero;
                    split = true;
                    break;
                }
                (s, c) = (f / r, g / r);
                g = d[i + 1] - p;
                let r = (d[i] - g) * s + two * c * b;
                p = s * r;
                d[i + 1] = g + p;
                g = c * r - b;
                vectors.rotate(i, i + 1, (c, s));
            }
            if !split {
                d[low] -= p;
                e[low] = g;
                e[high] = zero;
            }
        }
    }
    Ok(())
}

/// Householder QR (Golub & Van Loan, algorithm 5.2.1) of the matrix whose columns are the rows of
/// `a`: the columns of thin Q as rows, and R.
fn householder_qr<R: Real>(mut a: Rows<R>) -> (Rows<R>, Array2<R>) {
    let (m, n) = (a.cols, a.len());
    let k = m.min(n);
    let mut r = Array2::zeros((k, n));
    let mut taus = vec![R::zero(); k];
    for j in 0..n {
        let (before, column) = a.split(j);
        for i in 0..j.min(k) {
            reflect(&mut column[i..], &before[i * m + i..(i + 1) * m], taus[i]);
            r[[i, j]] = column[i];
        }
        if j < k {
            (r[[j, j]], taus[j]) = reflector(&mut column[j..]);
        }
    }
    let mut q = Rows::identity(k, m);
    for j in (0..k).rev() {
        for i in j..k {
            reflect(&mut q.row_mut(i)[j..], &a.row(j)[j..], taus[j]);
        }
    }
    (q, r)
}

/// A = U Σ Vᵀ for rows ≥ columns.
///
/// QR first, then one-sided Jacobi on Rᵀ (Golub & Van Loan, section 8.6.3; Drmač & Veselić, New
/// fast and accurate Jacobi SVD algorithm, 2008, for the transpose): rotations J make the columns
/// of Rᵀ J = V Σ orthogonal. V and U are the orthogonal factors of V Σ and A V: Householder
/// reflectors complete the bases where Σ has zeros, and J, which loses orthogonality from rotation
/// to rotation, is never needed.
fn jacobi_svd<R: Real>(a: ArrayView2<'_, R>) -> Outcome<(Array2<R>, Array1<R>, Array2<R>)> {
    let (_, r) = householder_qr(Rows::of(a.t()));
    let mut w = Rows::of(r.view());
    orthogonalize(&mut w)?;
    let norms: Array1<R> = (0..w.len()).map(|i| dot(w.row(i), w.row(i)).sqrt()).collect();
    let order = sorted(&norms, |x, y| x > y);
    let vt = orthonormal(w.picked(&order)).array();
    let mut ut = Array2::zeros((vt.nrows(), a.nrows()));
    general_mat_mul(R::one(), &vt, &a.t(), R::zero(), &mut ut);
    let u = orthonormal(Rows::of(ut.view())).transposed();
    Ok((u, norms.select(Axis(0), &order), vt))
}

/// Rows that are orthogonal up to rounding, normalised and made exactly so in their order; each
/// keeps its direction.
fn orthonormal<R: Real>(rows: Rows<R>) -> Rows<R> {
    let (mut q, r) = householder_qr(rows);
    for i in (0..q.len()).filter(|&i| r[[i, i]] < R::zero()) {
        q.row_mut(i).iter_mut().for_each(|x| *x = -*x);
    }
    q
}

/// Rotates the rows of `w` until all are orthogonal.
fn orthogonalize<R: Real>(w: &mut Rows<R>) -> Outcome<()> {
    let n = w.len();
    let (one, epsilon) = (R::one(), R::epsilon());
    // twice the worst rounding error of a scalar product: noise must not keep the sweeps going
    let tolerance = epsilon * R::of(n.max(8) as f64);
    let size = dot(&w.data, &w.data);
    let floor = epsilon * epsilon * size;
    for _sweep in 0..60 {
        let mut rotated = false;
        for p in 0..n {
            for q in p + 1..n {
                let (row_p, row_q) = w.pair(p, q);
                let (alpha, beta) = (dot(row_p, row_p), dot(row_q, row_q));
                let gamma = dot(row_p, row_q);
                if gamma.abs() <= floor + tolerance * alpha.sqrt() * beta.sqrt() {
                    continue;
                }
                rotated = true;
                let zeta = (beta - alpha) / (gamma + gamma);
                let t = one / (zeta.abs() + hypot(one, zeta));
                let t = if zeta < R::zero() { -t } else { t };
                let c = one / hypot(one, t);
                w.rotate(p, q, (c, c * t));
            }
        }
        if !rotated {
            return Ok(());
        }
    }
    Err(NO_CONVERGENCE)
}
