use super::all_reduce::mean;
use super::checks::{GRADIENT, check_length, problem};
use super::comm::Comm;
use super::exchange::{GradExchange, save_vector};
use crate::error::{Error, Result, check_finite};
use crate::error_feedback::compressor::{Compressor, Message};
use crate::numeric::Real;
use crate::state::{Lookup, Record};

/// What a worker compresses, and what it remembers.
///
/// `g` is the worker's gradient, `Δ = C(…)` its message, `mean` the mean over the workers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Feedback<R> {
    /// `Δ = C(g)`; the estimate is `mean Δ`. In general it does not converge with a biased compressor.
    Plain,
    /// Error compensation: `Δ = C(e + g); e ← e + g − Δ`; the estimate is `mean Δ`. It stalls near the
    /// optimum if the workers' gradients differ there.
    ///
    /// F. Seide and others, "1-Bit Stochastic Gradient Descent", 2014; S. U. Stich, J.-B. Cordonnier,
    /// M. Jaggi, "Sparsified SGD with Memory", NeurIPS 2018.
    Ec,
    /// EF21: `v ← μv + (1 − μ)g; Δ = C(v − h); h ← h + Δ`; the estimate is `mean h`.
    ///
    /// P. Richtárik, I. Sokolov, I. Fatkhullin, "EF21", NeurIPS 2021; momentum: I. Fatkhullin, A.
    /// Tyurin, P. Richtárik, "Momentum Provably Improves Error Feedback!", NeurIPS 2023.
    Ef21 {
        /// Momentum `μ` in `[0, 1)`; 0 for none.
        momentum: f64,
        /// Whether `h` starts at the first gradient, which is then sent uncompressed. Else it starts
        /// at 0.
        full_start: bool,
    },
    /// For analysis: `Δ = C(e + g − h*); e ← e + g − h* − Δ`; the estimate is `mean (h* + Δ)`. `h*`
    /// is the worker's gradient at the optimum.
    EcIdeal {
        /// The gradient of this worker's function at the optimum of their mean.
        optimum: Vec<R>,
    },
    /// EControl: `Δ = C(ηe + g − h); e ← e + g − h − Δ; h ← h + Δ`, where `e` takes the old `h`; the
    /// estimate is `mean h`.
    ///
    /// Y. Gao, R. Islamov, S. U. Stich, "EControl: Fast Distributed Optimization with Compression and
    /// Error Control", ICLR 2024.
    EControl {
        /// Gain `η` in `[0, 1)`; 0 is EF21. `None` takes the compressor's contraction constant, or
        /// 1/2 if that is 1.
        eta: Option<f64>,
        /// Whether `h` starts at the first gradient, which is then sent uncompressed. Else it starts
        /// at 0.
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
        Err(Error::InvalidHyperparameter {
            optimizer: "CompressedAllReduce",
            field,
            expected,
            found,
        })
    }
}

/// An all-reduce of compressed gradients: one message per worker and step, with or without error
/// feedback.
///
/// *Use it when* the network is slower than the backward pass. *Not when* the gradients are large
/// matrices of low rank: [`PowerSgd`](super::PowerSgd) sends factors that can be summed.
///
/// If a worker refuses its gradient it tells the others, and all workers refuse the step.
///
/// The [module page](super) has an example.
#[derive(Debug)]
pub struct CompressedAllReduce<R> {
    feedback: Feedback<R>,
    compressor: Box<dyn Compressor<R>>,
    t: u64,
    sent: u64,
    state: State<R>,
}

/// A vector is empty if the feedback does not need it. All are empty before the first step.
#[derive(Debug)]
struct State<R> {
    error: Vec<R>,
    h: Vec<R>,
    average: Vec<R>,
    /// The mean over the workers of `h`, or of `h*`.
    mean_h: Vec<R>,
}

impl<R> State<R> {
    fn empty() -> Self {
        Self { error: Vec::new(), h: Vec::new(), average: Vec::new(), mean_h: Vec::new() }
    }
}

/// This worker's message, and its state after the step.
struct Prepared<R> {
    message: Vec<u8>,
    /// The message decompressed: `Δ`.
    own: Vec<R>,
    error: Vec<R>,
    average: Vec<R>,
}

impl<R: Real> CompressedAllReduce<R> {
    /// An exchange before its first step. Compressors that draw random numbers need a different seed
    /// on every worker, unless their page says otherwise.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] for `momentum` or `eta` outside `[0, 1)`.
    pub fn new(feedback: Feedback<R>, compressor: Box<dyn Compressor<R>>) -> Result<Self> {
        feedback.validate()?;
        Ok(Self { feedback, compressor, t: 0, sent: 0, state: State::empty() })
    }

    /// This worker's residual `e`.
    pub fn error(&self) -> &[R] {
        &self.state.error
    }

    /// `h`: what the other workers know of this worker's gradient.
    pub fn estimate(&self) -> &[R] {
        &self.state.h
    }

    /// The state before the first step. Either all workers get an error, or none does.
    fn start(&self, comm: &dyn Comm, gradient: &[R]) -> Result<State<R>> {
        let [error, h, average, mean_h] = self.feedback.uses();
        let zeros = || vec![R::zero(); gradient.len()];
        let first = || if self.feedback.full_start() { gradient.to_vec() } else { zeros() };
        let if_used = |used: bool, values: &dyn Fn() -> Vec<R>| {
            if used { values() } else { Vec::new() }
        };
        let mut state = State {
            error: if_used(error, &zeros),
            h: if_used(h, &first),
            average: if_used(average, &first),
            mean_h: if_used(mean_h, &first),
        };
        if let Feedback::EcIdeal { optimum } = &self.feedback {
            state.mean_h.clone_from(optimum);
        }
        if self.feedback.shares_first() {
            mean(comm, &mut state.mean_h)?;
        }
        Ok(state)
    }

    /// Compresses what the feedback asks for. Nothing changes but the compressor's own state.
    fn prepare(&mut self, gradient: &[R]) -> Result<Prepared<R>> {
        let numel = gradient.len();
        check_finite(GRADIENT, gradient)?;
        self.compressor.validate(numel)?;
        let State { error, h, average, mean_h } = &self.state;
        let held = [error, h, average, mean_h].into_iter().filter(|values| !values.is_empty());
        held.map(Vec::len).try_for_each(|held| check_length(held, numel))?;

        let average = match &self.feedback {
            // with a full start, the average is the first gradient already
            Feedback::Ef21 { full_start: true, .. } if self.t == 0 => average.clone(),
            Feedback::Ef21 { momentum, .. } => {
                let (old, new) = (R::of(*momentum), R::of(1.0 - momentum));
                zip(average, gradient, |v, g| old * v + new * g)
            }
            _ => Vec::new(),
        };
        let base = match &self.feedback {
            Feedback::EcIdeal { optimum } => optimum,
            _ => h,
        };
        let aim = match &self.feedback {
            Feedback::Plain => gradient.to_vec(),
            Feedback::Ec => zip(error, gradient, |e, g| e + g),
            Feedback::Ef21 { .. } => zip(&average, base, |v, h| v - h),
            Feedback::EcIdeal { .. } => {
                zip(&zip(error, gradient, |e, g| e + g), base, |sum, h| sum - h)
            }
            Feedback::EControl { eta, .. } => {
                let eta = R::of(eta.unwrap_or_else(|| self.default_eta(numel)));
                zip(&zip(error, gradient, |e, g| eta * e + g), base, |sum, h| sum - h)
            }
        };
        check_finite("what is to be compressed", &aim)?;
        let message = self.compressor.compress(self.t + 1, &aim);
        let mut own = vec![R::zero(); numel];
        message.decompress_into(&mut own);
        check_finite("the compressed vector", &own)?;
        let rest = zip(gradient, &own, |g, own| g - own);
        let rest = if base.is_empty() { rest } else { zip(&rest, base, |x, h| x - h) };
        let error = zip(error, &rest, |e, x| e + x);
        check_finite("the residual", &error)?;
        check_finite("the estimate", &zip(h, &own, |h, own| h + own))?;
        Ok(Prepared { message: message.to_bytes(), own, error, average })
    }

    fn default_eta(&self, numel: usize) -> f64 {
        let contraction = self.compressor.contraction(numel);
        // with a gain of 1 it diverges
        if contraction < 1.0 { contraction.max(0.0) } else { 0.5 }
    }
}

impl<R> Feedback<R> {
    /// Which of `error`, `h`, `average` and `mean_h` the feedback needs.
    fn uses(&self) -> [bool; 4] {
        match self {
            Self::Plain => [false, false, false, false],
            Self::Ec => [true, false, false, false],
            Self::Ef21 { .. } => [false, true, true, true],
            Self::EcIdeal { .. } => [true, false, false, true],
            Self::EControl { .. } => [true, true, false, true],
        }
    }

    /// Whether a whole vector is sent before the first message.
    fn shares_first(&self) -> bool {
        self.full_start() || matches!(self, Self::EcIdeal { .. })
    }
}

/// `f` of every pair; empty if one of the vectors is.
fn zip<R: Real>(a: &[R], b: &[R], f: impl Fn(R, R) -> R) -> Vec<R> {
    a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
}

/// The mean of the messages, added in the order of the ranks.
fn average<R: Real>(messages: &[Vec<u8>], numel: usize) -> Result<Vec<R>> {
    if let Some(rank) = messages.iter().position(Vec::is_empty) {
        return Err(problem(format!("worker {rank} has refused its gradient")));
    }
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

impl<R: Real> CompressedAllReduce<R> {
    /// Exchanges the messages and returns the common estimate. An empty message is a refusal.
    fn agree(
        &self,
        comm: &dyn Comm,
        prepared: Result<Prepared<R>>,
        numel: usize,
    ) -> Result<(Prepared<R>, Vec<R>)> {
        // no real message is empty, so an empty one tells the others of the error
        let bytes = prepared.as_ref().map_or(&[][..], |prepared| &prepared.message);
        let all = comm.all_gather(bytes)?;
        let prepared = prepared?;
        let delta = average(&all, numel)?;
        let mean_h = &self.state.mean_h;
        let estimate = if mean_h.is_empty() { delta } else { zip(mean_h, &delta, |h, d| h + d) };
        check_finite("the common estimate", &estimate)?;
        Ok((prepared, estimate))
    }
}

impl<R: Real> GradExchange<R> for CompressedAllReduce<R> {
    fn exchange(&mut self, comm: &dyn Comm, gradient: &mut [R]) -> Result<()> {
        if self.t == 0 {
            // a first step that failed starts again from here
            self.state = self.start(comm, gradient)?;
        }
        let prepared = self.prepare(gradient);
        let agreed = self.agree(comm, prepared, gradient.len());
        if agreed.is_err() && self.t == 0 {
            self.state = State::empty();
        }
        let (prepared, estimate) = agreed?;
        // from here on nothing can fail
        let state = &mut self.state;
        state.h.iter_mut().zip(&prepared.own).for_each(|(h, &delta)| *h += delta);
        if !matches!(self.feedback, Feedback::EcIdeal { .. }) && !state.mean_h.is_empty() {
            state.mean_h.clone_from(&estimate);
        }
        (state.error, state.average) = (prepared.error, prepared.average);
        gradient.iter_mut().zip(estimate).for_each(|(g, x)| *g = x);
        let whole = self.t == 0 && self.feedback.shares_first();
        let whole = if whole { size_of_val(gradient) } else { 0 };
        self.sent += (prepared.message.len() + whole) as u64;
        self.t += 1;
        Ok(())
    }

    fn bytes_sent(&self) -> u64 {
        self.sent
    }

    fn save(&self, record: &mut Record<'_>) {
        record.count("step", self.t);
        record.count("sent", self.sent);
        save_vector("error", &self.state.error, record);
        save_vector("h", &self.state.h, record);
        save_vector("average", &self.state.average, record);
        save_vector("mean_h", &self.state.mean_h, record);
        self.compressor.save(&mut record.nested("compressor"));
    }

    fn load(&mut self, lookup: &Lookup<'_>) -> Result<()> {
        let (t, sent) = (lookup.count("step")?, lookup.count("sent")?);
        let names = ["error", "h", "average", "mean_h"];
        let [error, h, average, mean_h] = names.map(|name| lookup.list(name));
        let state = State { error: error?, h: h?, average: average?, mean_h: mean_h? };
        let State { error, h, average, mean_h } = &state;
        let vectors = [error, h, average, mean_h];
        let numel = vectors.iter().map(|values| values.len()).max().unwrap_or(0);
        for ((name, values), used) in names.iter().zip(vectors).zip(self.feedback.uses()) {
            if values.len() != if used && t > 0 { numel } else { 0 } {
                return Err(lookup.problem(name, "has another length than the feedback needs"));
            }
        }
        self.compressor.load(&lookup.nested("compressor"))?;
        (self.t, self.sent, self.state) = (t, sent, state);
        Ok(())
    }
}
