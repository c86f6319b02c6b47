use super::{
    Comm, GradExchange, check_finite, check_length, load_count, load_vector, mean, save_count,
    save_vector,
};
use crate::error::{Error, Result};
use crate::error_feedback::compressor::gram_schmidt;
use crate::linalg::{matmul, qr};
use crate::numeric::Real;
use crate::numeric::random::normal;
use crate::state::{Lookup, Record};
use ndarray::{Array2, ArrayRef2};

/// Which factor is exchanged when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PowerSgdOrder {
    /// Both at every step: `P = Σ MᵢQ`, then `Q = mean MᵢᵀP`; what is left is `Mᵢ − PQᵀ`. As the hook of
    /// PyTorch.
    #[default]
    Both,
    /// One at a step, in turns; what is left is `Mᵢ` less the worker's own share. As the authors' later
    /// code.
    Alternating,
}

/// PowerSGD: gradients of a matrix as products of two thin factors, which can be summed.
///
/// ```text
/// M = g + e
/// P = orth(Σ M Q),  Q = mean Mᵀ P        over the workers; Q goes on from the step before
/// estimate P Qᵀ,  e ← M − P Qᵀ
/// ```
/// Before step `start`, and where factors would not be `min_compression_rate` times smaller than the
/// matrix, gradients are averaged whole.
///
/// | field | default | whose |
/// |---|---|---|
/// | `rank` | 1 | PyTorch |
/// | `order` | `Both` | PyTorch |
/// | `error_feedback` | true | PyTorch |
/// | `start` | 1 | PyTorch: 1000 |
/// | `min_compression_rate` | 2 | PyTorch |
/// | `eps` | 1e-8 | PyTorch: 0 |
/// | `seed` | 0 | PyTorch |
///
/// # Source
/// T. Vogels, S. P. Karimireddy, M. Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for
/// Distributed Optimization", NeurIPS 2019.
#[derive(Clone, Debug, PartialEq)]
pub struct PowerSgd<R> {
    shape: (usize, usize),
    rank: usize,
    /// Which factor is exchanged when.
    pub order: PowerSgdOrder,
    /// Whether what is left out is added to the next gradient.
    pub error_feedback: bool,
    /// The first step, counted from 1, that is compressed.
    pub start: u64,
    /// How many times smaller the factors have to be, at least.
    pub min_compression_rate: f64,
    /// What keeps a column of zeros from being divided by zero.
    pub eps: f64,
    seed: u64,
    t: u64,
    sent: u64,
    p: Array2<R>,
    q: Array2<R>,
    error: Vec<R>,
}

impl<R: Real> PowerSgd<R> {
    /// An exchange of matrices `rows × columns`; `seed` is the same on all workers.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] for a `rank` of 0.
    pub fn new(rows: usize, columns: usize, rank: usize, seed: u64) -> Result<Self> {
        if rank == 0 {
            return Err(Error::InvalidHyperparameter {
                optimizer: "PowerSgd",
                field: "rank",
                expected: "at least 1".into(),
                found: "0".into(),
            });
        }
        let rank = rank.min(rows).min(columns);
        let drawn = |side: u32, count: usize| {
            Array2::from_shape_fn((count, rank), |(i, j)| {
                let place = (i * rank + j) as u64;
                let counter = [place as u32, (place >> 32) as u32, side, 0];
                R::of(normal(counter, [seed as u32, (seed >> 32) as u32]))
            })
        };
        Ok(Self {
            shape: (rows, columns),
            rank,
            order: PowerSgdOrder::Both,
            error_feedback: true,
            start: 1,
            min_compression_rate: 2.0,
            eps: 1e-8,
            seed,
            t: 0,
            sent: 0,
            p: drawn(0, rows),
            q: drawn(1, columns),
            error: vec![R::zero(); rows.saturating_mul(columns)],
        })
    }

    /// The same with given factors to begin with, `rows × rank` and `columns × rank`.
    ///
    /// # Errors
    /// [`Error::Exchange`] if they have other shapes.
    pub fn with_factors(mut self, p: Array2<R>, q: Array2<R>) -> Result<Self> {
        let (rows, columns) = self.shape;
        if p.dim() != (rows, self.rank) || q.dim() != (columns, self.rank) {
            return Err(super::problem("the factors have other shapes"));
        }
        (self.p, self.q) = (p, q);
        Ok(self)
    }

    /// What this worker has not sent.
    pub fn error(&self) -> &[R] {
        &self.error
    }

    fn compresses(&self) -> bool {
        let (rows, columns) = self.shape;
        let factors = (rows + columns) as f64 * self.rank as f64;
        self.t + 1 >= self.start
            && factors * self.min_compression_rate < (rows as f64) * (columns as f64)
    }

    /// Factors, and the part of the residual that is subtracted, with both exchanged.
    fn both(&self, comm: &dyn Comm, m: &Array2<R>) -> Result<[Array2<R>; 4]> {
        let mut q = self.q.clone();
        gram_schmidt(&mut q, self.eps);
        let mut p = matmul(m, &q)?;
        // orthonormalised next: dividing by the number of workers changes nothing but rounding
        average(comm, &mut p)?;
        gram_schmidt(&mut p, self.eps);
        let mut q = matmul(&m.t(), &p)?;
        average(comm, &mut q)?;
        let estimate = matmul(&p, &q.t())?;
        Ok([p, q, estimate.clone(), estimate])
    }

    /// The same with one of them exchanged.
    fn one(&self, comm: &dyn Comm, m: &Array2<R>) -> Result<[Array2<R>; 4]> {
        let even = self.t.is_multiple_of(2);
        let (old, matrix): (_, &ArrayRef2<R>) = if even { (&self.p, &m.t()) } else { (&self.q, m) };
        let (basis, _) = qr(old)?;
        let own = matmul(matrix, &basis)?;
        let mut other = own.clone();
        average(comm, &mut other)?;
        let product = |other: &Array2<R>| match even {
            true => matmul(&basis, &other.t()),
            false => matmul(other, &basis.t()),
        };
        let (estimate, share) = (product(&other)?, product(&own)?);
        let (p, q) = if even { (basis, other) } else { (other, basis) };
        Ok([p, q, estimate, share])
    }
}

fn average<R: Real>(comm: &dyn Comm, matrix: &mut Array2<R>) -> Result<()> {
    let mut values: Vec<R> = matrix.iter().copied().collect();
    mean(comm, &mut values)?;
    matrix.iter_mut().zip(values).for_each(|(x, value)| *x = value);
    Ok(())
}

impl<R: Real> GradExchange<R> for PowerSgd<R> {
    fn exchange(&mut self, comm: &dyn Comm, gradient: &mut [R]) -> Result<()> {
        check_finite(gradient)?;
        check_length(self.error.len(), gradient.len())?;
        if !self.compresses() {
            mean(comm, gradient)?;
            self.sent += size_of_val(gradient) as u64;
            self.t += 1;
            return Ok(());
        }
        let sum: Vec<R> = gradient.iter().zip(&self.error).map(|(&g, &e)| g + e).collect();
        let m = Array2::from_shape_vec(self.shape, sum);
        let m = m.map_err(|_| super::problem("the gradient is no such matrix"))?;
        let [p, q, estimate, share] = match self.order {
            PowerSgdOrder::Both => self.both(comm, &m)?,
            PowerSgdOrder::Alternating => self.one(comm, &m)?,
        };
        if self.error_feedback {
            let left = m.iter().zip(&share).map(|(&m, &c)| m - c);
            self.error = left.collect();
        }
        gradient.iter_mut().zip(&estimate).for_each(|(g, &x)| *g = x);
        let exchanged = match self.order {
            PowerSgdOrder::Both => p.len() + q.len(),
            PowerSgdOrder::Alternating if self.t.is_multiple_of(2) => q.len(),
            PowerSgdOrder::Alternating => p.len(),
        };
        self.sent += (exchanged * size_of::<R>()) as u64;
        (self.p, self.q) = (p, q);
        self.t += 1;
        // from factors of zero the iteration would not come back
        if self.q.iter().chain(&self.p).all(|x| *x == R::zero()) {
            let fresh = Self::new(self.shape.0, self.shape.1, self.rank, self.seed ^ self.t)?;
            (self.p, self.q) = (fresh.p, fresh.q);
        }
        Ok(())
    }

    fn bytes_sent(&self) -> u64 {
        self.sent
    }

    fn save(&self, record: &mut Record<'_>) {
        save_count("step", self.t, record);
        save_count("sent", self.sent, record);
        save_vector("error", &self.error, record);
        let flat = |matrix: &Array2<R>| matrix.iter().copied().collect::<Vec<R>>();
        save_vector("p", &flat(&self.p), record);
        save_vector("q", &flat(&self.q), record);
    }

    fn load(&mut self, lookup: &Lookup<'_>) -> Result<()> {
        let (t, sent) = (load_count("step", lookup)?, load_count("sent", lookup)?);
        let error = load_vector("error", lookup)?;
        let matrix = |name: &str, like: &Array2<R>| {
            let loaded = Array2::from_shape_vec(like.dim(), load_vector(name, lookup)?);
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
