use super::all_reduce::mean;
use super::checks::{GRADIENT, check_length, problem};
use super::comm::Comm;
use super::exchange::{GradExchange, save_vector};
use crate::error::{Error, Result, check_finite};
use crate::error_feedback::compressor::{gram_schmidt, normal_factor, redraw_zero_columns};
use crate::hyper::Range;
use crate::linalg::{matmul, qr, scale_to_one};
use crate::numeric::Real;
use crate::numeric::limits::MOST_ITERATIONS;
use crate::state::{Lookup, Record};
use ndarray::{Array2, ArrayRef2};

/// Which factors a step of [`PowerSgd`] exchanges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PowerSgdOrder {
    /// Both at every step: `P = Σ MᵢQ`, then `Q = mean MᵢᵀP`. The residual is `Mᵢ − PQᵀ`. As
    /// PyTorch's hook does.
    #[default]
    Both,
    /// `P` and `Q` in turn, one per step. The residual is `Mᵢ` minus the worker's own share of the
    /// estimate. As the authors' later code does.
    Alternating,
}

/// PowerSGD: the gradient of a matrix is sent as two low-rank factors, which can be summed.
///
/// *Use it when* gradients are large matrices and the network is slow. *Not when* they are vectors:
/// the factors of a vector are not smaller than the vector.
///
/// ```text
/// M = g + e
/// P = orth(Σ M Q),  Q = mean Mᵀ P        over the workers; the Q on the right is that of the last step
/// estimate P Qᵀ,  e ← M − P Qᵀ
/// ```
/// With more `iterations`, each compresses what the ones before it left out, and their estimates are
/// added. Gradients are averaged uncompressed before step `start`, and if the factors would not be
/// `min_compression_rate` times smaller than the matrix.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `rank` | 1 | PyTorch |
/// | `order` | `Both` | PyTorch |
/// | `iterations` | 1 | the authors' later code |
/// | `error_feedback` | true | PyTorch |
/// | `start` | 1 | PyTorch: 1000 |
/// | `min_compression_rate` | 2 | PyTorch |
/// | `eps` | 1e-8, relative to the largest element of a factor | PyTorch: 0 |
/// | `seed` | 0 | PyTorch |
///
/// State per worker for a matrix of a × b elements: e, ab values, and P and Q, (a + b)r values.
///
/// # Examples
/// ```
/// use eigenstep::distributed::{GradExchange, PowerSgd, SingleProcess};
///
/// // of rank 1: nothing of it is left out
/// let mut gradient: Vec<f64> = (0..48).map(|i| f64::from((i / 8 + 1) * (i % 8 - 3))).collect();
/// let expected = gradient.clone();
/// let mut exchange = PowerSgd::new(6, 8, 1, 0)?;
/// exchange.exchange(&SingleProcess, &mut gradient)?;
/// assert!(gradient.iter().zip(&expected).all(|(x, y)| (x - y).abs() < 1e-6));
/// assert_eq!(exchange.bytes_sent(), 8 * (6 + 8));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// T. Vogels, S. P. Karimireddy, M. Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for
/// Distributed Optimization", NeurIPS 2019.
#[derive(Clone, Debug, PartialEq)]
pub struct PowerSgd<R> {
    shape: (usize, usize),
    rank: usize,
    /// Which factors a step exchanges.
    pub order: PowerSgdOrder,
    /// Exchanges per step, at least 1. Each compresses what the ones before it left out.
    pub iterations: u64,
    /// Whether the residual is added to the next gradient.
    pub error_feedback: bool,
    /// The first compressed step, counted from 1.
    pub start: u64,
    /// How many times smaller than the matrix the factors must be.
    pub min_compression_rate: f64,
    /// Keeps a column of zeros from being divided by zero.
    pub eps: f64,
    seed: u64,
    t: u64,
    sent: u64,
    p: Array2<R>,
    q: Array2<R>,
    error: Vec<R>,
}

impl<R: Real> PowerSgd<R> {
    /// An exchange of matrices `rows × columns`. All workers need the same `seed`.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] if `rank` is 0, or if the matrix has too many elements to be
    /// counted.
    pub fn new(rows: usize, columns: usize, rank: usize, seed: u64) -> Result<Self> {
        if rank == 0 {
            return Err(invalid("rank", "at least 1", "0".into()));
        }
        let numel = rows.checked_mul(columns).filter(|numel| *numel <= isize::MAX as usize / 16);
        let numel = numel.ok_or_else(|| {
            invalid("columns", "so few that the elements can be counted", columns.to_string())
        })?;
        let rank = rank.min(rows).min(columns);
        Ok(Self {
            shape: (rows, columns),
            rank,
            order: PowerSgdOrder::Both,
            iterations: 1,
            error_feedback: true,
            start: 1,
            min_compression_rate: 2.0,
            eps: 1e-8,
            seed,
            t: 0,
            sent: 0,
            p: normal_factor((rows, rank), !seed, 0),
            q: normal_factor((columns, rank), seed, 0),
            error: vec![R::zero(); numel],
        })
    }

    /// The same, starting from given factors `p`, `rows × rank`, and `q`, `columns × rank`.
    ///
    /// # Errors
    /// [`Error::Exchange`] if the factors have other shapes.
    pub fn with_factors(mut self, p: Array2<R>, q: Array2<R>) -> Result<Self> {
        let (rows, columns) = self.shape;
        if p.dim() != (rows, self.rank) || q.dim() != (columns, self.rank) {
            return Err(problem("the factors have other shapes"));
        }
        (self.p, self.q) = (p, q);
        Ok(self)
    }

    /// This worker's residual `e`.
    pub fn error(&self) -> &[R] {
        &self.error
    }

    fn compresses(&self) -> bool {
        let (rows, columns) = self.shape;
        let factors = (rows + columns) as f64 * self.rank as f64;
        self.t + 1 >= self.start
            && factors * self.min_compression_rate < (rows as f64) * (columns as f64)
    }

    fn validate(&self) -> Result<()> {
        if !(1..=MOST_ITERATIONS).contains(&self.iterations) {
            let expected = format!("at least 1 and at most {MOST_ITERATIONS}");
            return Err(invalid("iterations", &expected, self.iterations.to_string()));
        }
        for (field, value) in
            [("eps", self.eps), ("min_compression_rate", self.min_compression_rate)]
        {
            if !Range::NonNegative.contains(value) {
                return Err(invalid(field, &Range::NonNegative.describe(), value.to_string()));
            }
        }
        Ok(())
    }

    /// The sum of gradient and residual, as a matrix.
    fn matrix(&self, gradient: &[R]) -> Result<Array2<R>> {
        check_length(self.error.len(), gradient.len())?;
        check_finite(GRADIENT, gradient)?;
        let sum = gradient.iter().zip(&self.error).map(|(&g, &e)| g + e).collect();
        let m = Array2::from_shape_vec(self.shape, sum);
        m.map_err(|_| problem("the gradient is no such matrix"))
    }

    /// Makes the columns orthonormal. They are scaled first, so that `eps` is relative to their
    /// largest element.
    fn orthonormalize(&self, factor: &mut Array2<R>) {
        scale_to_one(factor);
        gram_schmidt(factor, self.eps);
    }

    /// All exchanges of a step. Returns what is left to send, the common estimate, and how many
    /// numbers were sent.
    fn agree(&self, comm: &dyn Comm, mut left: Left<R>) -> Result<(Left<R>, Array2<R>, usize)> {
        let (mut sum, mut sent) = (Array2::zeros(self.shape), 0);
        for iteration in 0..self.iterations {
            let index = self.t.wrapping_mul(self.iterations).wrapping_add(iteration);
            let mut agreed = self.compress(index, comm, &left)?;
            redraw_zero_columns(&mut agreed.p, !self.seed, index + 1);
            redraw_zero_columns(&mut agreed.q, self.seed, index + 1);
            let most = R::max_value();
            left.matrix.zip_mut_with(&agreed.share, |m, &c| *m = (*m - c).max(-most).min(most));
            (left.p, left.q) = (agreed.p, agreed.q);
            sum += &agreed.estimate;
            sent += agreed.sent;
        }
        Ok((left, sum, sent))
    }

    /// One exchange of what is left to send; `index` counts all exchanges.
    fn compress(&self, index: u64, comm: &dyn Comm, left: &Left<R>) -> Result<Agreement<R>> {
        match self.order {
            PowerSgdOrder::Both => self.both(comm, left),
            PowerSgdOrder::Alternating => one(index.is_multiple_of(2), comm, left),
        }
    }

    /// Exchanges both factors.
    fn both(&self, comm: &dyn Comm, left: &Left<R>) -> Result<Agreement<R>> {
        let (m, mut q) = (&left.matrix, left.q.clone());
        self.orthonormalize(&mut q);
        let mut p = product(m, &q);
        average(comm, &mut p)?;
        self.orthonormalize(&mut p);
        let mut q = product(&m.t(), &p);
        average(comm, &mut q)?;
        let estimate = product(&p, &q.t());
        Ok(Agreement { sent: p.len() + q.len(), p, q, share: estimate.clone(), estimate })
    }
}

/// What is still to be sent in a step, and the current factors.
struct Left<R> {
    matrix: Array2<R>,
    p: Array2<R>,
    q: Array2<R>,
}

/// The outcome of one exchange.
struct Agreement<R> {
    p: Array2<R>,
    q: Array2<R>,
    estimate: Array2<R>,
    /// This worker's share of the estimate.
    share: Array2<R>,
    /// How many numbers were sent.
    sent: usize,
}

/// Exchanges one of the factors.
fn one<R: Real>(even: bool, comm: &dyn Comm, left: &Left<R>) -> Result<Agreement<R>> {
    let Left { matrix: m, p, q } = left;
    let (old, matrix): (_, &ArrayRef2<R>) = if even { (p, &m.t()) } else { (q, m) };
    let (basis, _) = qr(old)?;
    let own = product(matrix, &basis);
    let mut other = own.clone();
    average(comm, &mut other)?;
    let whole = |other: &Array2<R>| match even {
        true => product(&basis, &other.t()),
        false => product(other, &basis.t()),
    };
    let (estimate, share, sent) = (whole(&other), whole(&own), other.len());
    let (p, q) = if even { (basis, other) } else { (other, basis) };
    Ok(Agreement { p, q, estimate, share, sent })
}

fn invalid(field: &'static str, expected: &str, found: String) -> Error {
    Error::invalid("PowerSgd", field, expected, found)
}

/// A product. It is NaN if the shapes do not fit: then the sum over the workers tells all of them.
fn product<R: Real>(a: &ArrayRef2<R>, b: &ArrayRef2<R>) -> Array2<R> {
    matmul(a, b).unwrap_or_else(|_| Array2::from_elem((a.nrows(), b.ncols()), R::nan()))
}

/// Replaces a factor by its mean over the workers.
fn average<R: Real>(comm: &dyn Comm, factor: &mut Array2<R>) -> Result<()> {
    let mut values: Vec<R> = factor.iter().copied().collect();
    mean(comm, &mut values)?;
    factor.iter_mut().zip(values).for_each(|(x, value)| *x = value);
    Ok(())
}

impl<R: Real> GradExchange<R> for PowerSgd<R> {
    fn exchange(&mut self, comm: &dyn Comm, gradient: &mut [R]) -> Result<()> {
        self.validate()?;
        if !self.compresses() {
            mean(comm, gradient)?;
            self.sent += size_of_val(gradient) as u64;
            self.t += 1;
            return Ok(());
        }
        let (matrix, refusal) = match self.matrix(gradient) {
            Ok(matrix) => (matrix, None),
            // the others learn of the error from the NaN in the sum
            Err(error) => (Array2::from_elem(self.shape, R::nan()), Some(error)),
        };
        let agreed = self.agree(comm, Left { matrix, p: self.p.clone(), q: self.q.clone() });
        if let Some(error) = refusal {
            return Err(error);
        }
        let (left, sum, sent) = agreed?;
        check_finite("the common estimate", sum.as_slice().unwrap_or_default())?;
        // from here on nothing can fail
        if self.error_feedback {
            self.error = left.matrix.iter().copied().collect();
        }
        gradient.iter_mut().zip(&sum).for_each(|(g, &x)| *g = x);
        self.sent += (sent * size_of::<R>()) as u64;
        self.t += 1;
        (self.p, self.q) = (left.p, left.q);
        Ok(())
    }

    fn bytes_sent(&self) -> u64 {
        self.sent
    }

    fn save(&self, record: &mut Record<'_>) {
        record.count("step", self.t);
        record.count("sent", self.sent);
        save_vector("error", &self.error, record);
        let flat = |matrix: &Array2<R>| matrix.iter().copied().collect::<Vec<R>>();
        save_vector("p", &flat(&self.p), record);
        save_vector("q", &flat(&self.q), record);
    }

    fn load(&mut self, lookup: &Lookup<'_>) -> Result<()> {
        let (t, sent) = (lookup.count("step")?, lookup.count("sent")?);
        let error = lookup.list("error")?;
        let matrix = |name: &str, like: &Array2<R>| {
            let loaded = Array2::from_shape_vec(like.dim(), lookup.list(name)?);
            loaded.map_err(|_| lookup.problem(name, "has another number of elements"))
        };
        let (p, q) = (matrix("p", &self.p)?, matrix("q", &self.q)?);
        if error.len() != self.error.len() {
            return Err(lookup.problem("error", "has another number of elements"));
        }
        (self.t, self.sent, self.error, self.p, self.q) = (t, sent, error, p, q);
        Ok(())
    }
}
