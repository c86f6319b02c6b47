//! The façade around every backend: checks, scaling, and the conventions that make results unique.

use super::backend::{Backend, Eigh, Qr, Svd, Triangle};
use super::layout::mirror_lower;
use super::norms::symmetrized;
use super::routines::{NOT_POSITIVE, Routines};
use super::scale::{reciprocal_power_of_two, sorted};
use super::table::Table;
use super::task::{Task, largest};
use crate::error::Result;
use crate::numeric::Real;
use ndarray::{Array1, Array2, ArrayRef2, ArrayView2, ArrayViewMut2, Axis, CowArray, Ix2};

impl Backend {
    fn routines<R: Real>(self) -> &'static dyn Routines<R> {
        R::choose(Table(self))
    }

    /// [`eigh`](super::eigh) by this backend.
    ///
    /// # Errors
    /// As [`eigh`](super::eigh).
    pub fn eigh<R: Real>(self, a: &ArrayRef2<R>) -> Result<Eigh<R>> {
        let task = Task::new("eigh", a);
        task.square()?;
        let largest = task.largest(a)?;
        if a.is_empty() {
            return Ok((Array1::zeros(0), Array2::zeros((0, 0))));
        }
        let scale = scale_for(largest);
        let result = self.routines().eigh(symmetrized(&scaled(a, scale)));
        let (mut values, mut vectors) = result.map_err(|why| task.fails(why))?;
        let order = sorted(&values, |x, y| x < y);
        if !order.iter().copied().eq(0..order.len()) {
            (values, vectors) = (values.select(Axis(0), &order), vectors.select(Axis(1), &order));
        }
        values.mapv_inplace(|x| x / scale);
        let signs = column_signs(&vectors);
        vectors *= &signs;
        task.check(&values)?;
        task.check(&vectors)?;
        Ok((values, vectors))
    }

    /// [`qr`](super::qr) by this backend.
    ///
    /// # Errors
    /// As [`qr`](super::qr).
    pub fn qr<R: Real>(self, a: &ArrayRef2<R>) -> Result<Qr<R>> {
        let task = Task::new("QR", a);
        let (m, n) = a.dim();
        let scale = scale_for(task.largest(a)?);
        if a.is_empty() {
            let k = m.min(n);
            return Ok((Array2::zeros((m, k)), Array2::zeros((k, n))));
        }
        let result = self.routines().qr(scaled(a, scale).view());
        let (mut q, mut r) = result.map_err(|why| task.fails(why))?;
        let sign = |&x: &R| if x < R::zero() { -R::one() } else { R::one() };
        let signs: Array1<R> = r.diag().iter().map(sign).collect();
        q *= &signs;
        r *= &signs.insert_axis(Axis(1));
        if scale != R::one() {
            r.mapv_inplace(|x| x / scale);
        }
        task.check(&q)?;
        task.check(&r)?;
        Ok((q, r))
    }

    /// [`cholesky`](super::cholesky) by this backend.
    ///
    /// # Errors
    /// As [`cholesky`](super::cholesky).
    pub fn cholesky<R: Real>(self, a: &ArrayRef2<R>) -> Result<Array2<R>> {
        let task = Task::new("Cholesky factorisation", a);
        task.square()?;
        let largest = task.largest_in(a, Triangle::Lower)?;
        if a.is_empty() {
            return Ok(Array2::zeros((0, 0)));
        }
        // L scales by the root of what A scales by, so that must be a power of two
        let scale = match scale_for(largest) {
            one if one == R::one() => one,
            _ => reciprocal_power_of_two(largest.sqrt()),
        };
        let result = self.routines().cholesky(scaled(&scaled(a, scale), scale).view());
        let mut l = result.map_err(|why| task.fails(why))?;
        if scale != R::one() {
            l.mapv_inplace(|x| x / scale);
        }
        // finite entries with a finite factor that has no positive diagonal: rounding hid the sign
        if l.iter().any(|x| !x.is_finite()) || l.diag().iter().any(|&x| x <= R::zero()) {
            return Err(task.fails(NOT_POSITIVE));
        }
        Ok(l)
    }

    /// [`svd`](super::svd) by this backend.
    ///
    /// # Errors
    /// As [`svd`](super::svd).
    pub fn svd<R: Real>(self, a: &ArrayRef2<R>) -> Result<Svd<R>> {
        let task = Task::new("SVD", a);
        let (m, n) = a.dim();
        let scale = scale_for(task.largest(a)?);
        if a.is_empty() {
            return Ok((Array2::zeros((m, 0)), Array1::zeros(0), Array2::zeros((0, n))));
        }
        let result = self.routines().svd(scaled(a, scale).view());
        let (u, s, vt) = result.map_err(|why| task.fails(why))?;
        let order = sorted(&s, |x, y| x > y);
        let s = s.select(Axis(0), &order).mapv(|x| x / scale);
        let (mut u, mut vt) = (u.select(Axis(1), &order), vt.select(Axis(0), &order));
        let signs = column_signs(&u);
        u *= &signs;
        vt *= &signs.insert_axis(Axis(1));
        task.check(&u)?;
        task.check(&s)?;
        task.check(&vt)?;
        Ok((u, s, vt))
    }

    /// [`gram_left`](super::gram_left) by this backend.
    pub fn gram_left<R: Real>(self, g: &ArrayRef2<R>) -> Array2<R> {
        self.gram(g.as_standard_layout().view())
    }

    /// [`gram_right`](super::gram_right) by this backend.
    pub fn gram_right<R: Real>(self, g: &ArrayRef2<R>) -> Array2<R> {
        self.gram(g.as_standard_layout().t())
    }

    /// [`add_gram_left`](super::add_gram_left) by this backend.
    ///
    /// # Errors
    /// As [`add_gram_left`](super::add_gram_left).
    pub fn add_gram_left<R: Real>(
        self,
        g: &ArrayRef2<R>,
        weights: (R, R),
        c: &mut Array2<R>,
    ) -> Result<()> {
        self.add_gram(g.as_standard_layout().view(), weights, c)
    }

    /// [`add_gram_right`](super::add_gram_right) by this backend.
    ///
    /// # Errors
    /// As [`add_gram_right`](super::add_gram_right).
    pub fn add_gram_right<R: Real>(
        self,
        g: &ArrayRef2<R>,
        weights: (R, R),
        c: &mut Array2<R>,
    ) -> Result<()> {
        self.add_gram(g.as_standard_layout().t(), weights, c)
    }

    fn add_gram<R: Real>(
        self,
        g: ArrayView2<'_, R>,
        weights: (R, R),
        c: &mut Array2<R>,
    ) -> Result<()> {
        let task = Task::new("Gram matrix", &g);
        if c.dim() != (g.nrows(), g.nrows()) {
            return Err(task.fails("the destination does not have the order of the product"));
        }
        if g.is_empty() {
            c.mapv_inplace(|x| x * weights.0);
        } else {
            self.routines().add_lower(g, g.t(), weights, c.view_mut());
        }
        Ok(())
    }

    /// α A B + β C into C, for shapes that fit.
    pub(super) fn product<R: Real>(
        self,
        a: (R, ArrayView2<'_, R>),
        b: ArrayView2<'_, R>,
        c: (R, ArrayViewMut2<'_, R>),
    ) {
        self.routines().product(a, b, c);
    }

    fn gram<R: Real>(self, g: ArrayView2<'_, R>) -> Array2<R> {
        self.symmetric_product(g, g.t())
    }

    /// A B where that is symmetric, from its lower triangle.
    ///
    /// Each factor is row-major or the transpose of a row-major matrix. A caller must not hand over now
    /// the one and now the other: the order of faer's sums depends on it.
    pub(super) fn symmetric_product<R: Real>(
        self,
        a: ArrayView2<'_, R>,
        b: ArrayView2<'_, R>,
    ) -> Array2<R> {
        let mut c = Array2::zeros((a.nrows(), b.ncols()));
        if a.is_empty() {
            return c;
        }
        self.routines().add_lower(a, b, (R::zero(), R::one()), c.view_mut());
        mirror_lower(c)
    }

    /// [`solve_triangular`](super::solve_triangular) by this backend.
    ///
    /// # Errors
    /// As [`solve_triangular`](super::solve_triangular).
    pub fn solve_triangular<R: Real>(
        self,
        a: &ArrayRef2<R>,
        triangle: Triangle,
        transposed: bool,
        b: &ArrayRef2<R>,
    ) -> Result<Array2<R>> {
        let task = Task::new("triangular solve", a);
        task.square()?;
        if a.nrows() != b.nrows() {
            return Err(task.fails("the right-hand side must have as many rows"));
        }
        task.largest_in(a, triangle)?;
        if !largest(b).is_finite() {
            return Err(task.fails("the right-hand side holds a NaN or an infinity"));
        }
        if a.diag().iter().any(|x| *x == R::zero()) {
            return Err(task.fails("the matrix is singular: there is a zero on its diagonal"));
        }
        if b.is_empty() {
            return Ok(b.to_owned());
        }
        let (a, triangle) = match (transposed, triangle) {
            (false, triangle) => (a.view(), triangle),
            (true, Triangle::Lower) => (a.t(), Triangle::Upper),
            (true, Triangle::Upper) => (a.t(), Triangle::Lower),
        };
        let result = self.routines().solve_triangular(a, triangle, b.to_owned());
        let x = result.map_err(|why| task.fails(why))?;
        task.check(&x)?;
        Ok(x)
    }
}

/// One if squares and reciprocal squares of `largest` are harmless, else the power of two that
/// brings it near one. The range is LAPACK's (`rmin`, `rmax` in `dsyev`).
fn scale_for<R: Real>(largest: R) -> R {
    let low = (R::min_positive_value() / R::epsilon()).sqrt();
    let harmless = low < largest && largest < low.recip();
    if harmless || largest == R::zero() { R::one() } else { reciprocal_power_of_two(largest) }
}

/// `a · scale`, without a copy where that changes nothing.
fn scaled<R: Real>(a: &ArrayRef2<R>, scale: R) -> CowArray<'_, R, Ix2> {
    if scale == R::one() { a.view().into() } else { a.mapv(|x| x * scale).into() }
}

/// −1 for each column whose entry of largest magnitude, the first of them, is negative; 1 for the others.
fn column_signs<R: Real>(a: &ArrayRef2<R>) -> Array1<R> {
    let mut leaders = Array1::zeros(a.ncols());
    for row in a.rows() {
        leaders.zip_mut_with(&row, |m: &mut R, &x| *m = if x.abs() > m.abs() { x } else { *m });
    }
    leaders.mapv(|x| if x < R::zero() { -R::one() } else { R::one() })
}
