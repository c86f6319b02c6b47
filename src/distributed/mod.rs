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
//! use eigenstep::distributed::{CompressedAllReduce, Feedback, GradExchange, LocalComm};
//! use eigenstep::error_feedback::Selection;
//! use eigenstep::error_feedback::compressor::TopK;
//!
//! let work = |rank: usize, comm: LocalComm| -> eigenstep::Result<Vec<f64>> {
//!     let target: Vec<f64> = (0..8).map(|i| ((rank * 8 + i) as f64).sin()).collect();
//!     let feedback = Feedback::Ef21 { momentum: 0.0, full_start: true };
//!     let compressor = TopK(Selection::Count { k: 2 });
//!     let mut exchange = CompressedAllReduce::<f64>::new(feedback, Box::new(compressor))?;
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

mod all_reduce;
mod checks;
mod comm;
mod compressed_all_reduce;
mod exchange;
mod power_sgd;

pub use all_reduce::AllReduce;
pub use comm::{Comm, LocalComm, SingleProcess};
pub use compressed_all_reduce::{CompressedAllReduce, Feedback};
pub use exchange::GradExchange;
pub use power_sgd::{PowerSgd, PowerSgdOrder};
