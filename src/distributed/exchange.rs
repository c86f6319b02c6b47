//! What every exchange can do, and how counts and vectors of it are saved.

use super::comm::Comm;
use crate::error::Result;
use crate::numeric::Real;
use crate::state::{Lookup, Record, Scalar, StateTensor};
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
    /// [`Error::StateDict`](crate::Error::StateDict) names the key.
    fn load(&mut self, lookup: &Lookup<'_>) -> Result<()>;
}

pub(super) fn save_vector<R: Real>(name: &str, values: &[R], record: &mut Record<'_>) {
    record.tensor(name, StateTensor::new(&[values.len()], values));
}

pub(super) fn save_count(name: &str, count: u64, record: &mut Record<'_>) {
    record.scalar(name, Scalar::Int(i64::try_from(count).unwrap_or(i64::MAX)));
}

pub(super) fn load_count(name: &str, lookup: &Lookup<'_>) -> Result<u64> {
    let count = lookup.scalar(name).and_then(Scalar::as_u64);
    count.ok_or_else(|| lookup.problem(name, "is not a count"))
}
