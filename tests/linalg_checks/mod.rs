//! Matrices to decompose, and what a decomposition must satisfy.
#![allow(dead_code, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

use eigenstep::linalg::{Backend, Triangle};
use eigenstep::numeric::Real;
use ndarray::{Array1, Array2, ArrayRef2, s};

/// Residuals are measured in units of n·ε·‖A‖; none may exceed this.
pub const BOUND: f64 = 8.0;

/// The same for matrices whose entries span more than the digits of the number type, some of them
/// subnormal: their rounding errors are not random.
pub const WILD_BOUND: f64 = 64.0;

/// Uniform entries in (−1, 1).
pub fn random<R: Real>(rows: usize, cols: usize, seed: u64) -> Array2<R> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678;
    Array2::from_shape_simple_fn((rows, cols), || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        R::of(((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0)
    })
}

pub fn orthogonal(n: usize, seed: u64) -> Array2<f64> {
    Backend::Native.qr(&random::<f64>(n, n, seed)).unwrap().0
}

/// Q Diag(values) Qᵀ for a random Q, rounded to R.
pub fn symmetric<R: Real>(values: &[f64], seed: u64) -> Array2<R> {
    let q = orthogonal(values.len(), seed);
    let a = (&q * &Array1::from(values.to_vec())).dot(&q.t());
    Array2::from_shape_fn(a.dim(), |(i, j)| R::of(0.5 * (a[(i, j)] + a[(j, i)])))
}

/// `n` numbers from 1 down to 1/condition, evenly spaced in the logarithm.
pub fn log_spaced(n: usize, condition: f64) -> Vec<f64> {
    (0..n).map(|i| condition.powf(-(i as f64) / (n.max(2) - 1) as f64)).collect()
}

pub fn wide<R: Real>(a: &ArrayRef2<R>) -> Array2<f64> {
    a.mapv(Real::widen)
}

pub fn norm(a: &Array2<f64>) -> f64 {
    let largest = a.fold(0.0_f64, |m, x| m.max(x.abs()));
    if largest == 0.0 {
        return 0.0;
    }
    largest * a.fold(0.0, |sum, x| sum + (x / largest).powi(2)).sqrt()
}

pub fn epsilon<R: Real>() -> f64 {
    R::epsilon().widen()
}

/// ‖found − expected‖ in units of n·ε·scale, beyond what rounding to subnormal numbers explains.
pub fn units<R: Real>(found: &Array2<f64>, expected: &Array2<f64>, scale: f64) -> f64 {
    let n = found.nrows().max(found.ncols()).max(1) as f64;
    let subnormal = R::min_positive_value().widen() * epsilon::<R>();
    let error = norm(&(found - expected)) - 2.0 * n * n * subnormal;
    if error <= 0.0 { 0.0 } else { error / (n * epsilon::<R>() * scale) }
}

/// A backend, and how many units its residuals may have.
pub struct Check(pub Backend, pub f64);

impl Check {
    pub fn new(backend: Backend) -> Self {
        Check(backend, BOUND)
    }

    fn within(&self, what: &str, units: f64) {
        let Check(backend, bound) = self;
        assert!(units <= *bound, "{backend:?} {what}: {units:.2} units of n·ε·‖A‖");
    }

    /// `order`: the dimension that the sums of the decomposition run over.
    fn orthonormal<R: Real>(&self, what: &str, q: &Array2<f64>, order: usize) {
        let error = norm(&(q.t().dot(q) - Array2::<f64>::eye(q.ncols())));
        self.within(what, error / (order as f64 * epsilon::<R>()));
    }

    pub fn eigh<R: Real>(&self, a: &Array2<R>) {
        let (values, vectors) = self.0.eigh(a).unwrap();
        assert!(values.windows(2).into_iter().all(|pair| pair[0] <= pair[1]), "not ascending");
        leaders_positive(&vectors);
        let (v, full) = (wide(&vectors), wide(a));
        let rebuilt = (&v * &values.mapv(Real::widen)).dot(&v.t());
        self.within("eigh", units::<R>(&rebuilt, &full, norm(&full)));
        self.orthonormal::<R>("eigh vectors", &v, a.nrows());
    }

    pub fn qr<R: Real>(&self, a: &Array2<R>) {
        let (q, r) = self.0.qr(a).unwrap();
        let k = a.nrows().min(a.ncols());
        assert_eq!((q.dim(), r.dim()), ((a.nrows(), k), (k, a.ncols())));
        for ((i, j), &x) in r.indexed_iter() {
            assert!(i <= j || x == R::zero(), "R is not triangular");
            assert!(i != j || x >= R::zero(), "R has a negative diagonal");
        }
        let full = wide(a);
        self.within("QR", units::<R>(&wide(&q).dot(&wide(&r)), &full, norm(&full)));
        self.orthonormal::<R>("Q", &wide(&q), a.nrows().max(a.ncols()));
    }

    pub fn svd<R: Real>(&self, a: &Array2<R>) {
        let (u, values, vt) = self.0.svd(a).unwrap();
        let k = a.nrows().min(a.ncols());
        assert_eq!((u.dim(), values.len(), vt.dim()), ((a.nrows(), k), k, (k, a.ncols())));
        assert!(values.windows(2).into_iter().all(|pair| pair[0] >= pair[1]), "not descending");
        assert!(values.iter().all(|&x| x >= R::zero()), "negative singular value");
        leaders_positive(&u);
        let full = wide(a);
        let rebuilt = (&wide(&u) * &values.mapv(Real::widen)).dot(&wide(&vt));
        self.within("SVD", units::<R>(&rebuilt, &full, norm(&full)));
        let order = a.nrows().max(a.ncols());
        self.orthonormal::<R>("U", &wide(&u), order);
        self.orthonormal::<R>("V", &wide(&vt).reversed_axes(), order);
    }

    pub fn cholesky<R: Real>(&self, a: &Array2<R>) {
        let l = self.0.cholesky(a).unwrap();
        for ((i, j), &x) in l.indexed_iter() {
            assert!(i >= j || x == R::zero(), "L is not triangular");
            assert!(i != j || x > R::zero(), "L has no positive diagonal");
        }
        let full = wide(a);
        self.within("Cholesky", units::<R>(&wide(&l).dot(&wide(&l).t()), &full, norm(&full)));
    }

    /// ‖T X − B‖ ≤ units · n·ε·‖T‖·‖X‖ for both triangles, straight and transposed.
    pub fn solve<R: Real>(&self, a: &Array2<R>, b: &Array2<R>) {
        for triangle in [Triangle::Lower, Triangle::Upper] {
            for transposed in [false, true] {
                let x = self.0.solve_triangular(a, triangle, transposed, b).unwrap();
                let mut t = wide(a);
                for ((i, j), x) in t.indexed_iter_mut() {
                    if i != j && (i > j) != (triangle == Triangle::Lower) {
                        *x = 0.0;
                    }
                }
                let t = if transposed { t.reversed_axes() } else { t };
                let scale = norm(&t) * norm(&wide(&x));
                let found = t.dot(&wide(&x));
                self.within("triangular solve", units::<R>(&found, &wide(b), scale));
            }
        }
    }

    pub fn gram<R: Real>(&self, g: &Array2<R>) {
        let full = wide(g);
        for (found, expected) in [
            (self.0.gram_left(g), full.dot(&full.t())),
            (self.0.gram_right(g), full.t().dot(&full)),
        ] {
            assert_eq!(found, found.t(), "a Gram matrix is not exactly symmetric");
            let n = g.nrows().max(g.ncols()).max(1) as f64;
            let scale = n * epsilon::<R>() * norm(&full).powi(2);
            let error = norm(&(wide(&found) - expected));
            self.within("Gram", if error == 0.0 { 0.0 } else { error / scale });
        }
    }
}

/// Every diagonal or leading entry that the conventions make non-negative is.
fn leaders_positive<R: Real>(vectors: &Array2<R>) {
    for column in vectors.columns() {
        let leader = column.iter().fold(R::zero(), |m, &x| if x.abs() > m.abs() { x } else { m });
        assert!(leader > R::zero());
    }
}

/// The same numbers as `a` in other memory: Fortran order, strided, reversed, and at several
/// offsets from an aligned address. Calls `f` with a name and each view.
pub fn in_other_memory<R: Real>(a: &Array2<R>, mut f: impl FnMut(&str, &ArrayRef2<R>)) {
    let (m, n) = a.dim();
    f("row-major", a);
    let mut fortran = Array2::from_elem((n, m), R::zero());
    fortran.assign(&a.t());
    f("column-major", &fortran.t());
    let mut strided = Array2::from_elem((2 * m, 3 * n), R::nan());
    strided.slice_mut(s![..;2, ..;3]).assign(a);
    f("strided", &strided.slice(s![..;2, ..;3]));
    let mut reversed = Array2::from_elem((m, n), R::nan());
    reversed.slice_mut(s![..;-1, ..;-1]).assign(a);
    f("reversed", &reversed.slice(s![..;-1, ..;-1]));
    for offset in 1..16 {
        let mut shifted = Array1::from_elem(m * n + offset, R::nan());
        let mut part = shifted.slice_mut(s![offset..]);
        part.iter_mut().zip(a).for_each(|(x, &y)| *x = y);
        f("shifted", &part.into_shape_with_order((m, n)).unwrap());
    }
}

pub fn check_all<R: Real>(rows: usize, cols: usize, seed: u64) {
    let a = random::<R>(rows, cols, seed);
    let square = random::<R>(rows, rows, seed ^ 1);
    let sum = &square + &square.t();
    let definite = Backend::Native.gram_left(&random::<R>(rows, 2 * rows, seed ^ 2));
    let mut triangular = random::<R>(rows, rows, seed ^ 3);
    triangular.diag_mut().mapv_inplace(|x| x + R::of(if x < R::zero() { -1.0 } else { 1.0 }));
    for &backend in Backend::available() {
        let check = Check::new(backend);
        check.eigh(&sum);
        check.qr(&a);
        check.svd(&a);
        check.cholesky(&definite);
        check.solve(&triangular, &a);
        check.gram(&a);
    }
}
