//! Independent runs side by side, each on one thread.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The results of all jobs, in their order. As many run at a time as there are processors; each has
/// a thread pool of one thread, so that the steps in it take no other run's time.
pub fn run<J: Sync, R: Send>(
    jobs: &[J],
    work: impl Fn(&J) -> R + Sync,
) -> Result<Vec<R>, Box<dyn Error>> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<(usize, R)>, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(index) else { return Ok(done) };
            done.push((index, pool.install(|| work(job))));
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(jobs.len().max(1));
    let mut results = thread::scope(|scope| -> Result<Vec<(usize, R)>, Box<dyn Error>> {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let mut results = Vec::new();
        for thread in threads {
            results.extend(thread.join().map_err(|_| "a run panicked")??);
        }
        Ok(results)
    })?;
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}
