//! The connection between the workers.

use super::checks::problem;
use crate::error::{Error, Result};
use crate::numeric::Element;
use crate::quant::bf16_value;
use crate::state::Dtype;
use std::fmt::Debug;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// One worker's connection to all workers.
///
/// An implementation needs three functions: [`rank`](Comm::rank), [`size`](Comm::size) and
/// [`all_gather`](Comm::all_gather). The others are built on these. Override them where the network
/// has a faster way, as long as every worker gets the same bits. All workers call the same functions
/// in the same order.
///
/// # Examples
/// A network, here one of a single worker:
/// ```
/// use eigenstep::distributed::{AllReduce, Comm, GradExchange};
///
/// #[derive(Debug)]
/// struct Network;
///
/// impl Comm for Network {
///     fn rank(&self) -> usize {
///         0
///     }
///     fn size(&self) -> usize {
///         1
///     }
///     fn all_gather(&self, own: &[u8]) -> eigenstep::Result<Vec<Vec<u8>>> {
///         Ok(vec![own.to_vec()])
///     }
/// }
///
/// let mut gradient = [1.0f32, -2.0];
/// AllReduce::default().exchange(&Network, &mut gradient)?;
/// assert_eq!(gradient, [1.0, -2.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub trait Comm: Debug + Send + Sync {
    /// The number of this worker, counted from 0.
    fn rank(&self) -> usize;

    /// The number of workers.
    fn size(&self) -> usize;

    /// Sends `own` to all workers, and returns the bytes of all workers in the order of their ranks.
    /// Lengths may differ.
    ///
    /// # Errors
    /// [`Error::Exchange`] if a worker is gone or the network fails.
    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Replaces little-endian numbers of one type by their sums over all workers, added in the order
    /// of the ranks.
    ///
    /// # Errors
    /// As [`Comm::all_gather`]; also if the workers' lengths differ, or `dtype` cannot be summed.
    fn all_reduce_sum(&self, dtype: Dtype, bytes: &mut [u8]) -> Result<()> {
        let all = self.all_gather(bytes)?;
        if all.iter().any(|other| other.len() != bytes.len()) {
            return Err(problem("the workers' gradients have different lengths"));
        }
        let sums = match dtype {
            Dtype::F32 => sum::<f32>(&all),
            Dtype::F64 => sum::<f64>(&all),
            Dtype::Bf16 => sum_bf16(&all),
            other => return Err(problem(format!("{other:?} cannot be summed"))),
        };
        bytes.iter_mut().zip(sums).for_each(|(byte, sum)| *byte = sum);
        Ok(())
    }

    /// Replaces `bytes` by the bytes of worker `root`.
    ///
    /// # Errors
    /// As [`Comm::all_gather`]; also if there is no such worker.
    fn broadcast(&self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let own: &[u8] = if self.rank() == root { bytes } else { &[] };
        let mut all = self.all_gather(own)?;
        let workers = all.len();
        let sent = all.get_mut(root).ok_or_else(|| {
            problem(format!("there is no worker {root}, the last is {}", workers.saturating_sub(1)))
        })?;
        *bytes = std::mem::take(sent);
        Ok(())
    }
}

fn sum<T: Element<Compute = T> + std::ops::AddAssign>(all: &[Vec<u8>]) -> Vec<u8> {
    let mut sums: Vec<T> = Vec::new();
    for (rank, bytes) in all.iter().enumerate() {
        let values = T::read_le(bytes);
        if rank == 0 {
            sums = values;
        } else {
            sums.iter_mut().zip(values).for_each(|(sum, x)| *sum += x);
        }
    }
    let mut bytes = Vec::new();
    T::write_le(&sums, &mut bytes);
    bytes
}

/// Sums in `f32`, and rounds once.
fn sum_bf16(all: &[Vec<u8>]) -> Vec<u8> {
    let mut sums: Vec<f32> = Vec::new();
    for bytes in all {
        let words = bytes.as_chunks().0;
        sums.resize(words.len(), 0.0);
        for (sum, &word) in sums.iter_mut().zip(words) {
            *sum += bf16_value::<f32>(u16::from_le_bytes(word));
        }
    }
    let mut codes = vec![0; sums.len()];
    crate::quant::encode_bf16(crate::kernel::Isa::detect(), &sums, &mut codes);
    codes.into_iter().flat_map(u16::to_le_bytes).collect()
}

/// A single worker, without others.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleProcess;

impl Comm for SingleProcess {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![own.to_vec()])
    }
}

/// More threads than any machine runs.
const MOST_WORKERS: usize = 1 << 16;

/// One of several workers that are threads of one process.
///
/// Results do not depend on the timing of the threads. If a worker is dropped, also by a panic, the
/// others get an error; they do not wait forever.
#[derive(Debug)]
pub struct LocalComm {
    rank: usize,
    size: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    round: Mutex<Round>,
    round_ended: Condvar,
}

#[derive(Debug, Default)]
struct Round {
    /// How many rounds have ended.
    number: u64,
    /// The bytes of this round, by rank; `None`: not there yet.
    arrived: Vec<Option<Vec<u8>>>,
    /// The bytes of the last round.
    gathered: Arc<Vec<Vec<u8>>>,
    /// Whether a worker is gone.
    broken: bool,
}

impl LocalComm {
    /// A group of `size` workers.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] for the field `size` if it is 0 or more than 65,536.
    pub fn workers(size: usize) -> Result<Vec<Self>> {
        if !(1..=MOST_WORKERS).contains(&size) {
            return Err(Error::InvalidHyperparameter {
                optimizer: "LocalComm",
                field: "size",
                expected: format!("at least 1 and at most {MOST_WORKERS}"),
                found: size.to_string(),
            });
        }
        let round = Round { arrived: vec![None; size], ..Round::default() };
        let shared = Arc::new(Shared { round: Mutex::new(round), round_ended: Condvar::new() });
        let worker = |rank| Self { rank, size, shared: Arc::clone(&shared) };
        Ok((0..size).map(worker).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Round> {
        // no panic can leave a round half changed, so a poisoned lock is usable
        self.shared.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Comm for LocalComm {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut round = self.lock();
        let number = round.number;
        if let Some(place) = round.arrived.get_mut(self.rank) {
            *place = Some(own.to_vec());
        }
        if round.arrived.iter().all(Option::is_some) {
            let all = round.arrived.iter_mut().filter_map(Option::take).collect();
            round.gathered = Arc::new(all);
            round.number += 1;
            self.shared.round_ended.notify_all();
        }
        while round.number == number {
            if round.broken {
                return Err(problem("another worker is gone"));
            }
            round = self.shared.round_ended.wait(round).unwrap_or_else(PoisonError::into_inner);
        }
        // `gathered` is still this round's: the next round cannot end before this worker joins it
        let gathered = Arc::clone(&round.gathered);
        drop(round);
        Ok(gathered.to_vec())
    }
}

impl Drop for LocalComm {
    fn drop(&mut self) {
        self.lock().broken = true;
        self.shared.round_ended.notify_all();
    }
}
