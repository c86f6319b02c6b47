//! Threads that are counted.

/// `f` on this many threads.
pub fn on_threads<O: Send>(threads: usize, f: impl FnOnce() -> O + Send) -> O {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(f)
}
