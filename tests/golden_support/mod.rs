//! Pieces of the golden runner, one per kind of case.

pub mod adafactor;
pub mod compare;
pub mod compressors;
pub mod curvature;
pub mod data;
pub mod discrete;
pub mod dispatch;
pub mod distributed;
pub mod exchange;
pub mod gradients;
pub mod grids;
pub mod json;
pub mod kernels;
pub mod low_dimensional;
mod lowbit;
pub mod matrix_codecs;
pub mod matrix_runs;
pub mod noise;
pub mod objectives;
pub mod options;
pub mod report;
#[cfg(feature = "half")]
pub mod rounding;
mod rules;
pub mod scheduler_cases;
pub mod schedulers;
pub mod second_order;
pub mod small_kernels;
pub mod soap_runs;
pub mod trajectory;
pub mod windows;
pub mod wrappers;
pub mod zeroth_kernels;
pub mod zeroth_order;

/// Why a case did not pass.
#[derive(Clone, Debug)]
pub enum Stop {
    /// The crate or the runner does not have what the case is about.
    Skip(String),
    /// The numbers, or the case itself, are wrong.
    Fail(String),
}

/// What running a case, or a part of it, gives.
pub type Outcome<T = ()> = Result<T, Stop>;

/// How the reason of a skip begins that the features of the build explain.
pub const NEEDS_FEATURE: &str = "needs the feature";

/// The case is about something that is not there.
pub fn skip(reason: impl Into<String>) -> Stop {
    Stop::Skip(reason.into())
}

/// The case is wrong, or the crate is.
pub fn fail(problem: impl Into<String>) -> Stop {
    Stop::Fail(problem.into())
}

impl Stop {
    /// The same, with the place in front.
    pub fn at(self, place: impl std::fmt::Display) -> Self {
        match self {
            Stop::Skip(reason) => Stop::Skip(format!("{place}: {reason}")),
            Stop::Fail(problem) => Stop::Fail(format!("{place}: {problem}")),
        }
    }
}

impl From<eigenstep::Error> for Stop {
    fn from(error: eigenstep::Error) -> Self {
        fail(error.to_string())
    }
}
