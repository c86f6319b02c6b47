//! Training on several workers: they agree on one gradient, and send few bytes for it.
//!
//! Every worker computes its own gradient. A [`GradExchange`] replaces it by an estimate of the mean
//! over all workers. The estimate is the same on every worker, so the parameters stay equal to the
//! bit.
//!
//! Bytes travel through a [`Comm`]. [`LocalComm`] connects workers that are threads of one process;
//! [`SingleProcess`] is a worker without others. Any other network needs three functions:
//! [`rank`](Comm::rank), [`size`](Comm::size) and [`all_gather`](Comm::all_gather).
//!
//! | exchange | sends | state per worker | with a biased compressor |
//! |---|---|---|---|
//! | [`AllReduce`] | the gradient, in full precision or bfloat16 | none | – |
//! | [`CompressedAllReduce`] with [`Feedback::Plain`] | `C(g)` | none | stalls |
//! | … with [`Feedback::Ec`] | `C(e + g)` | e | stalls if the workers' gradients differ at the optimum |
//! | … with [`Feedback::Ef21`] | `C(v − h)` | h, mean h, v | converges |
//! | … with [`Feedback::EcIdeal`] | `C(e + g − h*)` | e, mean h* | converges; for analysis |
//! | … with [`Feedback::EControl`] | `C(ηe + g − h)` | e, h, mean h | converges, also with gradient noise |
//! | [`PowerSgd`] | the factors of a low-rank matrix | e, P, Q | converges |
//!
//! `g` is the worker's gradient, `C` a [compressor](crate::error_feedback::compressor), `e` the
//! residual that error feedback keeps, `h` what the other workers know of `g`.
//!
//! # Examples
//! Four workers, each with its own quadratic. Every message holds two elements of eight:
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

// Floor 6.

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
