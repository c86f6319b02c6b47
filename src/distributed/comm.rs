//! What connects the workers.

use super::checks::problem;
use crate::error::{Error, Result};
use crate::numeric::Element;
use crate::quant::bf16_value;
use crate::state::Dtype;
use std::fmt::Debug;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A group of workers that exchange bytes.
///
/// All workers call the same functions in the same order. Only [`Comm::all_gather`] has to be written;
/// what is faster over a real network may be overridden, if every worker gets the same bits.
pub trait Comm: Debug + Send + Sync {
    /// Number of this worker, from 0.
    fn rank(&self) -> usize;

    /// Number of workers.
    fn size(&self) -> usize;

    /// The bytes of all workers, in the order of their ranks; lengths may differ.
    ///
    /// # Errors
    /// [`Error::Exchange`]: a worker is gone, or the network fails.
    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Sums little-endian numbers of one type over all workers, in the order of their ranks.
    ///
    /// # Errors
    /// As [`Comm::all_gather`]; also for workers with different numbers of bytes, or a type that cannot
    /// be summed.
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

    /// Replaces `bytes` by those of worker `root`.
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

/// In `f32`, rounded once.
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

/// One worker without others.
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

/// One of several virtual workers of a process; each has a thread of its own.
///
/// Results do not depend on which thread is faster. A worker that is dropped, also by a panic, leaves
/// the others with an error, not waiting.
#[derive(Debug)]
pub struct LocalComm {
    rank: usize,
    size: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    round: Mutex<Round>,
    turned: Condvar,
}

#[derive(Debug, Default)]
struct Round {
    /// Number of the round.
    number: u64,
    /// What has arrived in this round, by rank.
    arrived: Vec<Option<Vec<u8>>>,
    /// What the last round has brought.
    gathered: Arc<Vec<Vec<u8>>>,
    /// A worker is gone.
    broken: bool,
}

impl LocalComm {
    /// A group of `size` workers.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] for the field `size` if it is 0.
    pub fn workers(size: usize) -> Result<Vec<Self>> {
        if size == 0 {
            return Err(Error::InvalidHyperparameter {
                optimizer: "LocalComm",
                field: "size",
                expected: "at least 1".into(),
                found: "0".into(),
            });
        }
        let round = Round { arrived: vec![None; size], ..Round::default() };
        let shared = Arc::new(Shared { round: Mutex::new(round), turned: Condvar::new() });
        let worker = |rank| Self { rank, size, shared: Arc::clone(&shared) };
        Ok((0..size).map(worker).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Round> {
        // a round is whole between any two statements that could panic
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
            self.shared.turned.notify_all();
        }
        while round.number == number {
            if round.broken {
                return Err(problem("another worker is gone"));
            }
            round = self.shared.turned.wait(round).unwrap_or_else(PoisonError::into_inner);
        }
        // the next round cannot end before this worker has joined it
        let gathered = Arc::clone(&round.gathered);
        drop(round);
        Ok(gathered.to_vec())
    }
}

impl Drop for LocalComm {
    fn drop(&mut self) {
        self.lock().broken = true;
        self.shared.turned.notify_all();
    }
}
