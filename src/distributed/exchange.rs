//! The trait of all exchanges, and how their counts and vectors are saved.

use super::comm::Comm;
use crate::error::Result;
use crate::numeric::Real;
use crate::state::{Lookup, Record, StateTensor};
use std::fmt::Debug;

/// Turns the gradients of all workers into one estimate of their mean.
pub trait GradExchange<R: Real>: Debug + Send {
    /// Replaces this worker's `gradient` by the common estimate. All workers call it together, with
    /// gradients of the same length.
    ///
    /// # Errors
    /// The gradient is not finite, or its length has changed; a sum overflows; a worker is gone; the
    /// bytes received are not a message. If one worker gets an error, all workers get one. The
    /// gradient and the state have not changed then. Only the state inside a compressor may have
    /// moved on.
    fn exchange(&mut self, comm: &dyn Comm, gradient: &mut [R]) -> Result<()>;

    /// Bytes that this worker has sent so far, headers included.
    fn bytes_sent(&self) -> u64;

    /// Saves everything that the next exchange depends on.
    fn save(&self, record: &mut Record<'_>);

    /// Loads what [`GradExchange::save`] has saved. After an error nothing has changed.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the key.
    fn load(&mut self, lookup: &Lookup<'_>) -> Result<()>;
}

pub(super) fn save_vector<R: Real>(name: &str, values: &[R], record: &mut Record<'_>) {
    record.tensor(name, StateTensor::new(&[values.len()], values));
}
