//! How several workers agree on one gradient with few bytes.
//!
//! Every worker has a gradient of its own; an exchange replaces it by the common estimate that all of
//! them step along, so that their parameters stay equal to the bit. What travels are bytes, through a
//! [`Comm`]: [`LocalComm`] for virtual workers of one process; one over MPI needs four functions.
//!
//! | exchange | sends | state per worker | with a biased compressor |
//! |---|---|---|---|
//! | [`AllReduce`] | everything, or 16 bits of it | none | – |
//! | [`Feedback::Plain`] | `C(g)` | none | stalls |
//! | [`Feedback::Ec`] | `C(e + g)` | e | stalls where workers differ |
//! | [`Feedback::Ef21`] | `C(v − h)` | h, and v with momentum | converges |
//! | [`Feedback::EcIdeal`] | `C(e + g − h*)` | e, h* | converges; for analysis |
//! | [`Feedback::EControl`] | `C(ηe + g − h)` | e, h | converges, also with noise |
//! | [`PowerSgd`] | thin factors | e, Q | converges |
//!
//! # Examples
//! Four workers, each with a quadratic of its own, and two numbers of eight in every message:
//! ```
//! use eigenstep::error_feedback::Selection;
//! use eigenstep::error_feedback::compressor::TopK;
//! use eigenstep::error_feedback::exchange::{Compressed, Feedback, GradExchange, LocalComm};
//!
//! let work = |rank: usize, comm: LocalComm| -> eigenstep::Result<Vec<f64>> {
//!     let target: Vec<f64> = (0..8).map(|i| ((rank * 8 + i) as f64).sin()).collect();
//!     let feedback = Feedback::Ef21 { momentum: 0.0, full_start: true };
//!     let compressor = TopK(Selection::Count { k: 2 });
//!     let mut exchange = Compressed::<f64>::new(feedback, Box::new(compressor))?;
//!     let mut x = vec![0.0; 8];
//!     for _ in 0..400 {
//!         let mut gradient: Vec<f64> = x.iter().zip(&target).map(|(x, t)| x - t).collect();
//!         exchange.exchange(&comm, &mut gradient)?;
//!         x.iter_mut().zip(&gradient).for_each(|(x, g)| *x -= 0.1 * g);
//!     }
//!     Ok(x)
//! };
//! let workers = LocalComm::workers(4)?;
//! let results: Vec<Vec<f64>> = std::thread::scope(|scope| {
//!     let start = |(rank, comm)| scope.spawn(move || work(rank, comm));
//!     let threads: Vec<_> = workers.into_iter().enumerate().map(start).collect();
//!     threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Result<_, _>>()
//! })?;
//! let mean = (0..4).map(|rank| ((rank * 8) as f64).sin()).sum::<f64>() / 4.0;
//! assert!((results[0][0] - mean).abs() < 1e-9);
//! assert_eq!(results[0], results[3]);
//! # Ok::<(), eigenstep::Error>(())
//! ```

mod comm;
mod compressed;
mod power_sgd;
mod reduce;

pub use comm::{Alone, Comm, LocalComm};
pub use compressed::{Compressed, Feedback};
pub use power_sgd::{PowerSgd, PowerSgdOrder};
pub use reduce::AllReduce;

use crate::error::{Error, Result, check_finite};
use crate::numeric::Real;
use crate::state::{Dtype, Lookup, Record, Scalar, StateTensor};
use std::fmt::Debug;

/// Turns every worker's gradient into the estimate that all of them use.
pub trait GradExchange<R: Real>: Debug + Send {
    /// Replaces `gradient`, this worker's, by the common one. All workers call it together, with
    /// gradients of the same length.
    ///
    /// # Errors
    /// A gradient that is not finite, or of another length than before; sums that overflow; a worker that
    /// is gone; bytes that are no message. If one worker has such an error, all have one. Then the
    /// gradient and what is remembered have not changed, apart from where a compressor's own iteration
    /// goes on.
    fn exchange(&mut self, comm: &dyn Comm, gradient: &mut [R]) -> Result<()>;

    /// Bytes of the messages that this worker has handed to the others so far, headers included.
    fn bytes_sent(&self) -> u64;

    /// Writes everything that the next exchange depends on.
    fn save(&self, record: &mut Record<'_>);

    /// Reads what [`GradExchange::save`] has written; with an error nothing has changed.
    ///
    /// # Errors
    /// [`Error::StateDict`] names the key.
    fn load(&mut self, lookup: &Lookup<'_>) -> Result<()>;
}

/// The error of an exchange.
fn problem(text: impl Into<String>) -> Error {
    Error::Exchange { problem: text.into() }
}

/// What an error calls the gradient of this worker.
const GRADIENT: &str = "a gradient to exchange";

fn check_length(expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(problem(format!("expected {expected} elements, found {found}")))
}

/// The sum over all workers divided by their number. A number of any worker that is not finite, a sum
/// that overflows, or another length is an error for all of them; `values` have not changed then.
fn mean<R: Real>(comm: &dyn Comm, values: &mut [R]) -> Result<()> {
    let own = check_finite(GRADIENT, &*values);
    let mut bytes = Vec::with_capacity(size_of_val(values));
    R::write_le(values, &mut bytes);
    comm.all_reduce_sum(Dtype::of::<R>(), &mut bytes)?;
    own?;
    let workers = R::of(comm.size() as f64);
    let means: Vec<R> = R::read_le(&bytes).into_iter().map(|sum: R| sum / workers).collect();
    check_length(values.len(), means.len())?;
    check_finite("the sum of all gradients", &means)?;
    values.copy_from_slice(&means);
    Ok(())
}

fn save_vector<R: Real>(name: &str, values: &[R], record: &mut Record<'_>) {
    record.tensor(name, StateTensor::new(&[values.len()], values));
}

fn save_count(name: &str, count: u64, record: &mut Record<'_>) {
    record.scalar(name, Scalar::Int(i64::try_from(count).unwrap_or(i64::MAX)));
}

fn load_count(name: &str, lookup: &Lookup<'_>) -> Result<u64> {
    let count = lookup.scalar(name).and_then(Scalar::as_u64);
    count.ok_or_else(|| lookup.problem(name, "is not a count"))
}
