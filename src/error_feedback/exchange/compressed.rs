use super::{
    Comm, GradExchange, check_finite, check_length, load_count, load_vector, mean, save_count,
    save_vector,
};
use crate::error::{Error, Result};
use crate::error_feedback::compressor::{Compressor, Message};
use crate::numeric::Real;
use crate::state::{Lookup, Record};

/// What is compressed, and what a worker remembers of it.
///
/// `g`: the worker's gradient; `Δ = C(…)`: its message; `mean`: over the workers.
#[derive(Clone, Debug, PartialEq)]
pub enum Feedback<R> {
    /// `Δ = C(g)`, estimate `mean Δ`. With a biased compressor it does not converge in general.
    Plain,
    /// `Δ = C(e + g); e ← e + g − Δ`, estimate `mean Δ`: error compensation. Where the workers'
    /// gradients differ at the optimum it stalls near it.
    ///
    /// F. Seide and others, "1-Bit Stochastic Gradient Descent", 2014; S. U. Stich, J.-B. Cordonnier, M.
    /// Jaggi, "Sparsified SGD with Memory", NeurIPS 2018.
    Ec,
    /// `v ← μv + (1 − μ)g; Δ = C(v − h); h ← h + Δ`, estimate `mean h`.
    ///
    /// P. Richtárik, I. Sokolov, I. Fatkhullin, "EF21", NeurIPS 2021; momentum: I. Fatkhullin, A. Tyurin,
    /// P. Richtárik, "Momentum Provably Improves Error Feedback!", NeurIPS 2023.
    Ef21 {
        /// Weight `μ` of the old average, in `[0, 1)`; 0: none.
        momentum: f64,
        /// Whether `h` begins with the first gradient, which is sent whole, and not with zero.
        full_start: bool,
    },
    /// `Δ = C(e + g − h*); e ← e + g − h* − Δ`, estimate `mean (h* + Δ)`, for the worker's gradient `h*`
    /// at the optimum: for analysis.
    EcIdeal {
        /// The gradient of this worker's function at the optimum of their mean.
        optimum: Vec<R>,
    },
    /// `Δ = C(ηe + g − h); e ← e + g − h − Δ; h ← h + Δ`, estimate `mean h`, `e` with the old `h`.
    ///
    /// Y. Gao, R. Islamov, S. U. Stich, "EControl: Fast Distributed Optimization with Compression and
    /// Error Control", ICLR 2024.
    EControl {
        /// Gain `η` in `[0, 1)`; `None`: the compressor's contraction constant, at most 1/2. 0 is EF21.
        eta: Option<f64>,
        /// Whether `h` begins with the first gradient, which is sent whole, and not with zero.
        full_start: bool,
    },
}

impl<R> Feedback<R> {
    fn full_start(&self) -> bool {
        matches!(
            self,
            Self::Ef21 { full_start: true, .. } | Self::EControl { full_start: true, .. }
        )
    }

    fn validate(&self) -> Result<()> {
        let (field, value) = match *self {
            Self::Ef21 { momentum, .. } => ("momentum", momentum),
            Self::EControl { eta: Some(eta), .. } => ("eta", eta),
            _ => return Ok(()),
        };
        if (0.0..1.0).contains(&value) {
            return Ok(());
        }
        let (expected, found) = ("in [0, 1)".to_owned(), value.to_string());
        Err(Error::InvalidHyperparameter { optimizer: "Compressed", field, expected, found })
    }
}

/// One compressed message per worker and step, with or without feedback.
#[derive(Debug)]
pub struct Compressed<R> {
    feedback: Feedback<R>,
    compressor: Box<dyn Compressor<R>>,
    t: u64,
    sent: u64,
    state: State<R>,
}

/// Vectors that this feedback has no use for are empty.
#[derive(Clone, Debug, Default, PartialEq)]
struct State<R> {
    error: Vec<R>,
    h: Vec<R>,
    average: Vec<R>,
    /// The mean of all workers' `h`, or of their `h*`.
    mean_h: Vec<R>,
}

impl<R: Real> Compressed<R> {
    /// An exchange before its first step. Compressors that draw random numbers have another seed on
    /// every worker, unless they say otherwise.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] for `momentum` or `eta` outside `[0, 1)`.
    pub fn new(feedback: Feedback<R>, compressor: Box<dyn Compressor<R>>) -> Result<Self> {
        feedback.validate()?;
        let state = State { error: vec![], h: vec![], average: vec![], mean_h: vec![] };
        Ok(Self { feedback, compressor, t: 0, sent: 0, state })
    }

    /// The residual `e` of this worker.
    pub fn error(&self) -> &[R] {
        &self.state.error
    }

    /// What the others know of this worker's gradient: `h`.
    pub fn estimate(&self) -> &[R] {
        &self.state.h
    }

    /// The state that a first step begins with, for this gradient.
    fn start(&self, comm: &dyn Comm, gradient: &[R]) -> Result<State<R>> {
        let zeros = || vec![R::zero(); gradient.len()];
        let first = || if self.feedback.full_start() { gradient.to_vec() } else { zeros() };
        let none = Vec::new;
        let mut state = match &self.feedback {
            Feedback::Plain => State { error: none(), h: none(), average: none(), mean_h: none() },
            Feedback::Ec => State { error: zeros(), h: none(), average: none(), mean_h: none() },
            Feedback::Ef21 { .. } => {
                State { error: none(), h: first(), average: first(), mean_h: first() }
            }
            Feedback::EcIdeal { optimum } => {
                check_length(optimum.len(), gradient.len())?;
                State { error: zeros(), h: none(), average: none(), mean_h: optimum.clone() }
            }
            Feedback::EControl { .. } => {
                State { error: zeros(), h: first(), average: none(), mean_h: first() }
            }
        };
        if matches!(self.feedback, Feedback::EcIdeal { .. }) || self.feedback.full_start() {
            mean(comm, &mut state.mean_h)?;
        }
        Ok(state)
    }

    /// What is to be compressed.
    fn aim(&self, state: &mut State<R>, gradient: &[R]) -> Vec<R> {
        let pairs = |a: &[R], b: &[R], f: &dyn Fn(R, R) -> R| -> Vec<R> {
            a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
        };
        match &self.feedback {
            Feedback::Plain => gradient.to_vec(),
            Feedback::Ec => pairs(&state.error, gradient, &|e, g| e + g),
            Feedback::Ef21 { momentum, full_start } => {
                if self.t > 0 || !full_start {
                    let (old, new) = (R::of(*momentum), R::of(1.0 - momentum));
                    state.average = pairs(&state.average, gradient, &|v, g| old * v + new * g);
                }
                pairs(&state.average, &state.h, &|v, h| v - h)
            }
            Feedback::EcIdeal { optimum } => {
                let sum = pairs(&state.error, gradient, &|e, g| e + g);
                pairs(&sum, optimum, &|sum, h| sum - h)
            }
            Feedback::EControl { eta, .. } => {
                let contraction = || self.compressor.contraction(gradient.len()).clamp(0.0, 0.5);
                let eta = R::of(eta.unwrap_or_else(contraction));
                let sum = pairs(&state.error, gradient, &|e, g| eta * e + g);
                pairs(&sum, &state.h, &|sum, h| sum - h)
            }
        }
    }

    /// Takes the own message and the mean of all into the state; returns the estimate.
    fn settle(&self, state: &mut State<R>, gradient: &[R], own: &[R], all: Vec<R>) -> Vec<R> {
        let base: &[R] = match &self.feedback {
            Feedback::EcIdeal { optimum } => optimum,
            Feedback::EControl { .. } => &state.h,
            _ => &[],
        };
        for (i, e) in state.error.iter_mut().enumerate() {
            let at = |values: &[R]| values.get(i).copied().unwrap_or(R::zero());
            *e += at(gradient) - at(base) - at(own);
        }
        state.h.iter_mut().zip(own).for_each(|(h, &delta)| *h += delta);
        match &self.feedback {
            Feedback::Plain | Feedback::Ec => all,
            Feedback::EcIdeal { .. } => {
                all.iter().zip(&state.mean_h).map(|(&delta, &h)| h + delta).collect()
            }
            Feedback::Ef21 { .. } | Feedback::EControl { .. } => {
                state.mean_h.iter_mut().zip(all).for_each(|(h, delta)| *h += delta);
                state.mean_h.clone()
            }
        }
    }
}

/// The mean of the messages, added in the order of the ranks.
fn average<R: Real>(messages: &[Vec<u8>], numel: usize) -> Result<Vec<R>> {
    let (mut sum, mut one) = (vec![R::zero(); numel], vec![R::zero(); numel]);
    for bytes in messages {
        let message = Message::<R>::from_bytes(bytes)?;
        check_length(numel, message.numel())?;
        message.decompress_into(&mut one);
        sum.iter_mut().zip(&one).for_each(|(sum, &x)| *sum += x);
    }
    let workers = R::of(messages.len() as f64);
    sum.iter_mut().for_each(|x| *x /= workers);
    Ok(sum)
}

impl<R: Real> GradExchange<R> for Compressed<R> {
    fn exchange(&mut self, comm: &dyn Comm, gradient: &mut [R]) -> Result<()> {
        check_finite(gradient)?;
        let numel = gradient.len();
        self.compressor.validate(numel)?;
        let mut state = match self.t {
            0 => self.start(comm, gradient)?,
            _ => self.state.clone(),
        };
        let held = [&state.error, &state.h, &state.mean_h].into_iter().map(Vec::len).max();
        if let Some(held) = held.filter(|&held| held > 0) {
            check_length(held, numel)?;
        }
        let aim = self.aim(&mut state, gradient);
        let message = self.compressor.compress(self.t + 1, &aim);
        let mut own = vec![R::zero(); numel];
        message.decompress_into(&mut own);
        let bytes = message.to_bytes();
        let all = average(&comm.all_gather(&bytes)?, numel)?;
        let estimate = self.settle(&mut state, gradient, &own, all);
        // nothing can fail any more
        gradient.iter_mut().zip(estimate).for_each(|(g, x)| *g = x);
        let whole =
            if self.t == 0 && self.feedback.full_start() { size_of_val(gradient) } else { 0 };
        self.sent += (bytes.len() + whole) as u64;
        self.state = state;
        self.t += 1;
        Ok(())
    }

    fn bytes_sent(&self) -> u64 {
        self.sent
    }

    fn save(&self, record: &mut Record<'_>) {
        save_count("step", self.t, record);
        save_count("sent", self.sent, record);
        save_vector("error", &self.state.error, record);
        save_vector("h", &self.state.h, record);
        save_vector("average", &self.state.average, record);
        save_vector("mean_h", &self.state.mean_h, record);
        self.compressor.save(&mut record.nested("compressor"));
    }

    fn load(&mut self, lookup: &Lookup<'_>) -> Result<()> {
        let (t, sent) = (load_count("step", lookup)?, load_count("sent", lookup)?);
        let state = State {
            error: load_vector("error", lookup)?,
            h: load_vector("h", lookup)?,
            average: load_vector("average", lookup)?,
            mean_h: load_vector("mean_h", lookup)?,
        };
        self.compressor.load(&lookup.nested("compressor"))?;
        (self.t, self.sent, self.state) = (t, sent, state);
        Ok(())
    }
}
