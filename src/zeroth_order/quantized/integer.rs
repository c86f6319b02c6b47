//! Training of integer weights by integer perturbations.

use super::int_tensor::IntTensor;
use super::integer_format::IntegerFormat;
use super::quzo::QuzoReport;
use crate::error::{Error, Result};
use crate::hyper::Hyperparameters;
use crate::hyperparameters;
use crate::kernel::parallel::for_each_piece;
use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use crate::numeric::random::round_at_random;
use crate::optim::{IntoLoss, NonFinite};
use crate::state::{Record, Scalar, StateDict, save_options};
use crate::zeroth_order::directions::{DirectionKey, Random};
use crate::zeroth_order::estimator::{
    ESTIMATOR, Noise, OPTIONS, Philox, Purpose, Report, RngStream, Saved,
};
use ndarray::{ArrayView, Dimension};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

/// QuZO with integers: weights, perturbations and updates are integers.
///
/// *Use it when* a model of 8 or 4 bits has to be fine-tuned on the device that runs it, without additional
/// memory. *Not when* the model can compute with numbers between those of the grid: then
/// [`Quzo`](crate::zeroth_order::Quzo) can use smaller perturbations.
///
/// ```text
/// u: random direction,  v_i, v′_i = SR(σ·u_i): two independent roundings       w = Δ·code
/// s_i = (f(code + v_i) − f(code − v_i))/2
/// code ← code − SR( γ/(nσ²Δ²)·Σ s_i·v′_i ),  clamped to ±(largest code − K)
/// ```
/// `SR` is stochastic rounding, whose mean is exact. `E[v·v′ᵀ] = σ²·I`, so the estimate is unbiased for
/// linear functions. K is the largest possible |v|: ⌈σ⌉ for signs, ⌈9σ⌉ for normal numbers. Updates keep
/// weights at least K away from the ends of the range, so that every probe is a valid code. A weight that
/// is nearer to an end from the start is not changed. That depends on the weight alone and not on the
/// direction, so the estimates of all other weights stay unbiased.
///
/// A perturbation is added to the codes and subtracted again, which is exact for integers and needs no
/// copy. Additional memory: none, or one bit per weight for tensors with weights near an end.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-6 | MeZO |
/// | `sigma` σ | 1, which is one code | – |
/// | `sampler` | `Rademacher`; `Gaussian` is the other choice | – |
/// | `num_samples` n | 1 | QuZO |
/// | `format` | 8 bits | QuZO (8, 4) |
/// | `seed` | 0 | – |
/// | `non_finite` | `Error` | – |
///
/// # Errors
/// `build` refuses options out of range, other samplers, a format whose range is too small for `sigma`, and
/// `NonFinite::Propagate`, because an integer cannot be NaN.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::{IntTensor, IntegerQuzo};
/// use ndarray::array;
///
/// let config = IntegerQuzo { lr: 0.02, ..IntegerQuzo::default() };
/// let mut model = vec![config.quantize(array![1.0, -0.6, 0.3].view())?];
/// let mut opt = config.build()?;
/// let loss = |model: &[IntTensor]| model[0].dequantize::<f64>().mapv(|w| w * w).sum();
/// for _ in 0..300 {
///     opt.step(&mut model, loss)?;
/// }
/// assert!(loss(&model) < 0.05);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// Published forms decide from the drawn perturbation which weights stay, separately for each rounding.
/// That biases the weights near the ends. Here no perturbation can leave the range.
///
/// # Source
/// J. Zhou et al., "QuZO: Quantized Zeroth-Order Fine-Tuning for Large Language Models", EMNLP 2025.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct IntegerQuzo {
    /// The learning rate, at least 0.
    pub lr: f64,
    /// The perturbation size in codes, above 0.
    pub sigma: f64,
    /// The sampler of the directions: `Rademacher` or `Gaussian`.
    pub sampler: Random,
    /// The number of directions per step, at least 1.
    pub num_samples: usize,
    /// The range of the codes.
    pub format: IntegerFormat,
    /// The seed of all random numbers.
    pub seed: u64,
    /// What happens to losses that are NaN or infinite.
    pub non_finite: NonFinite,
}
crate::config_file::named_fields!(IntegerQuzo);

impl Default for IntegerQuzo {
    fn default() -> Self {
        Self {
            lr: 1e-6,
            sigma: 1.0,
            sampler: Random::default(),
            num_samples: 1,
            format: IntegerFormat::default(),
            seed: 0,
            non_finite: NonFinite::Error,
        }
    }
}

hyperparameters!(IntegerQuzo, "IntegerQuzo", {
    "lr": NonNegative = lr;
    "sigma": Positive = sigma;
    "num_samples": Count(1, (1 << 24) - 1) = num_samples;
}, |config| {
    config.format.validate()?;
    let refuse = |field, expected: &str, found| Err(IntegerQuzo::invalid(field, expected, found));
    if !matches!(config.sampler, Random::Rademacher | Random::Gaussian) {
        return refuse("sampler", "Rademacher or Gaussian", format!("{:?}", config.sampler));
    }
    if config.non_finite == NonFinite::Propagate {
        return refuse("non_finite", "Error or Skip: an integer cannot be NaN", "Propagate".into());
    }
    match config.limits() {
        (_, most) if most < 1 => {
            refuse("sigma", "smaller: probes leave the format's range", config.sigma.to_string())
        }
        _ => Ok(()),
    }
});

impl IntegerQuzo {
    /// The largest perturbation.
    fn reach(&self) -> i32 {
        let bound = match self.sampler {
            Random::Rademacher => 1.0,
            // a Box-Muller number from 53 bits is below 8.7
            _ => 9.0,
        };
        // `as` saturates
        (self.sigma * bound).ceil() as i32
    }

    /// The smallest and the largest code of a weight that moves.
    fn limits(&self) -> (i32, i32) {
        let reach = self.reach();
        (self.format.qmin().saturating_add(reach), self.format.qmax().saturating_sub(reach))
    }

    /// Quantizes a tensor to the nearest codes, with the smallest scale at which every weight can be
    /// perturbed. The scale is 1 for a tensor of zeros.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for an element that is not finite; [`Error::InvalidHyperparameter`] for what
    /// [`IntegerQuzo::build`] refuses.
    pub fn quantize<R: Real, D: Dimension>(
        &self,
        values: ArrayView<'_, R, D>,
    ) -> Result<IntTensor> {
        self.validate()?;
        if let Some(x) = values.iter().find(|x| !x.widen().is_finite()) {
            return Err(Error::NonFinite { what: "a weight to quantize", value: x.widen() });
        }
        let (_, most) = self.limits();
        let largest = values.iter().fold(0.0f64, |largest, x| largest.max(x.widen().abs()));
        let scale = match largest / f64::from(most) {
            scale if scale > 0.0 => scale,
            _ => 1.0,
        };
        // the quotient is at most `most`, up to one rounding
        let code = |x: &R| (x.widen() / scale).round_ties_even() as i8;
        IntTensor::new(values.shape(), scale, values.iter().map(code).collect())
    }

    /// Builds the optimizer.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names the option that is out of range.
    pub fn build(self) -> Result<IntegerQuzoOptimizer> {
        self.validate()?;
        let noise = Philox::new(self.seed);
        let report = Report::default();
        let (losses, fixed) = (Vec::new(), Vec::new());
        Ok(IntegerQuzoOptimizer { config: self, noise, step: 0, report, losses, fixed })
    }
}

/// The optimizer that [`IntegerQuzo`] builds.
#[derive(Debug)]
pub struct IntegerQuzoOptimizer {
    config: IntegerQuzo,
    noise: Philox,
    /// The number of the next step.
    step: u64,
    report: Report,
    /// A buffer for the losses of a step.
    losses: Vec<f64>,
    /// One bit per weight, set if it does not move, for every tensor; empty if all weights of the tensor
    /// move.
    fixed: Vec<Vec<u8>>,
}

/// The optimizer's name in state dicts: the one under which it was first saved.
const SAVED_NAME: &str = "QuzoLattice";

/// Elements that one thread works on at a time. A multiple of 8, so that the bits of a piece begin at a
/// byte.
const PIECE: usize = 1 << 13;

/// Half the difference of two losses, if it is finite.
fn slope(pair: &[f64]) -> Option<f64> {
    let &[plus, minus] = pair else { return None };
    Some((plus - minus) / 2.0).filter(|slope| slope.is_finite())
}

impl IntegerQuzoOptimizer {
    /// The configuration.
    pub fn config(&self) -> &IntegerQuzo {
        &self.config
    }

    /// Number of steps so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Changes the learning rate, from the next step on.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] unless it is finite and at least 0.
    pub fn set_lr(&mut self, lr: f64) -> Result<()> {
        self.config.set_option("lr", lr)
    }

    /// One step. The tensors and their order must be the same in every step.
    ///
    /// The coefficients of the report are derivatives along `v`, per code.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names a code outside the format; those of the closure;
    /// [`Error::NonFiniteLoss`]; [`Error::NonFinite`] for a derivative beyond the range of `f64`, unless it is
    /// skipped; [`Error::TooMany`]. Everything is unchanged then, and after a panic, too.
    pub fn step<V: IntoLoss>(
        &mut self,
        tensors: &mut [IntTensor],
        mut loss: impl FnMut(&[IntTensor]) -> V,
    ) -> Result<QuzoReport<'_>> {
        self.check_tensors(tensors)?;
        let mut losses = std::mem::take(&mut self.losses);
        losses.clear();
        // how often the perturbation `query` has been added
        let (mut query, mut held) = (0, 0);
        let mut evaluate = |tensors: &mut [IntTensor]| {
            for next in 0..self.queries() {
                query = next;
                for times in [1, -1] {
                    self.shift(tensors, query, times - held);
                    held = times;
                    losses.push(loss(tensors).into_loss()?);
                }
                self.shift(tensors, query, -held);
                held = 0;
            }
            Ok(())
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| evaluate(tensors)));
        self.shift(tensors, query, -held);
        self.losses = losses;
        outcome.unwrap_or_else(|panic| resume_unwind(panic)).and_then(|()| self.check_losses())?;
        let count = self.conclude();
        let saturated = if self.report.skipped { 0 } else { self.update(tensors, count) };
        self.step += 1;
        Ok(QuzoReport { report: &self.report, saturated })
    }

    /// Fewer than 2^24.
    fn queries(&self) -> u32 {
        self.config.num_samples as u32
    }

    /// Checks the tensors, and marks the weights that do not move.
    fn check_tensors(&mut self, tensors: &[IntTensor]) -> Result<()> {
        let largest = tensors.iter().map(|tensor| tensor.codes.len()).max().unwrap_or(0);
        RngStream::check(self.step, self.config.num_samples, largest)?;
        let format = self.config.format;
        let range = format.qmin()..=format.qmax();
        let mut codes = tensors.iter().flat_map(|tensor| &tensor.codes);
        if let Some(code) = codes.find(|&&code| !range.contains(&i32::from(code))) {
            let expected = format!("in {}..={}", format.qmin(), format.qmax());
            return Err(IntegerQuzo::invalid("codes", expected, code.to_string()));
        }
        let (least, most) = self.config.limits();
        let stays = |code: i8| !(least..=most).contains(&i32::from(code));
        self.fixed.resize(tensors.len(), Vec::new());
        for (fixed, tensor) in self.fixed.iter_mut().zip(tensors) {
            fixed.clear();
            if tensor.codes.iter().any(|&code| stays(code)) {
                fixed.extend(tensor.codes.chunks(8).map(|codes| {
                    let bit = |(i, &code): (usize, &i8)| u8::from(stays(code)) << i;
                    codes.iter().enumerate().map(bit).fold(0, |all, bit| all | bit)
                }));
            }
        }
        Ok(())
    }

    /// Refuses losses from which no step can be made.
    fn check_losses(&self) -> Result<()> {
        if self.config.non_finite != NonFinite::Error {
            return Ok(());
        }
        if let Some(loss) = self.losses.iter().find(|loss| !loss.is_finite()) {
            return Err(Error::NonFiniteLoss(*loss));
        }
        match self.losses.chunks_exact(2).find(|pair| slope(pair).is_none()) {
            Some(pair) => {
                let value = pair.iter().rev().fold(0.0, |value, loss| loss - value);
                Err(Error::NonFinite { what: "the derivative along a direction", value })
            }
            None => Ok(()),
        }
    }

    /// Writes the report, and returns how many directions count.
    fn conclude(&mut self) -> usize {
        let losses = std::mem::take(&mut self.losses);
        let slopes = losses.chunks_exact(2).map(slope);
        let count = slopes.clone().flatten().count();
        self.report.coefficients.clear();
        self.report.coefficients.extend(slopes.map(|slope| slope.unwrap_or(0.0)));
        let finite = losses.iter().filter(|loss| loss.is_finite());
        self.report.loss = finite.clone().sum::<f64>() / finite.count().max(1) as f64;
        (self.report.step, self.report.skipped) = (self.step, count == 0);
        self.losses = std::mem::replace(&mut self.report.losses, losses);
        count
    }

    fn key(&self, query: u32, tensor: usize) -> DirectionKey<'_, f64> {
        DirectionKey { noise: &self.noise, step: self.step, query, tensor }
    }

    /// Writes a piece of `v`, with 0 for weights that do not move.
    fn perturbation(
        &self,
        (tensor, query, purpose): (usize, u32, Purpose),
        offset: usize,
        out: &mut [f64],
    ) {
        let key = self.key(query, tensor);
        self.config.sampler.draw(&key, offset, out);
        let sigma = self.config.sigma;
        with_scratch(out.len(), |uniform: &mut [f64]| {
            self.uniform(&key.stream(purpose), offset, uniform);
            for (x, &mut u) in out.iter_mut().zip(uniform) {
                *x = round_at_random(sigma * *x, u);
            }
        });
        let fixed = self.fixed.get(tensor).and_then(|bits| bits.get(offset / 8..));
        for (x, bits) in out.chunks_mut(8).zip(fixed.unwrap_or_default()) {
            for (i, x) in x.iter_mut().enumerate() {
                *x = if bits >> i & 1 == 1 { 0.0 } else { *x };
            }
        }
    }

    fn uniform(&self, stream: &RngStream, offset: usize, out: &mut [f64]) {
        Noise::<f64>::uniform(&self.noise, stream, offset, out);
    }

    /// Adds `times·v` to the codes.
    fn shift(&self, tensors: &mut [IntTensor], query: u32, times: i32) {
        if times == 0 {
            return;
        }
        for (tensor, IntTensor { codes, .. }) in tensors.iter_mut().enumerate() {
            for_each_piece(codes, PIECE, |offset, codes| {
                with_scratch(codes.len(), |v: &mut [f64]| {
                    self.perturbation((tensor, query, Purpose::FirstRounding), offset, v);
                    for (code, &mut v) in codes.iter_mut().zip(v) {
                        // the codes before and after are in range, so intermediate wrapping is harmless
                        *code = code.wrapping_add((f64::from(times) * v) as i32 as i8);
                    }
                });
            });
        }
    }

    /// Writes the new codes. Returns how many reached an end of the range.
    fn update(&self, tensors: &mut [IntTensor], count: usize) -> usize {
        let IntegerQuzo { lr, sigma, .. } = self.config;
        let (least, most) = self.config.limits();
        let saturated = AtomicUsize::new(0);
        for (tensor, IntTensor { codes, scale, .. }) in tensors.iter_mut().enumerate() {
            let factor = lr / (count as f64 * (sigma * *scale).powi(2));
            for_each_piece(codes, PIECE, |offset, codes| {
                with_scratch(2 * codes.len(), |scratch: &mut [f64]| {
                    let (steps, v) = scratch.split_at_mut(codes.len());
                    steps.fill(0.0);
                    for (query, slope) in (0..).zip(&self.report.coefficients) {
                        if *slope == 0.0 {
                            continue;
                        }
                        self.perturbation((tensor, query, Purpose::SecondRounding), offset, v);
                        for (step, &mut v) in steps.iter_mut().zip(&mut *v) {
                            *step += factor * slope * v;
                        }
                    }
                    let key = self.key(0, tensor);
                    self.uniform(&key.stream(Purpose::UpdateRounding), offset, v);
                    let mut ends = 0;
                    for ((code, &mut step), &mut u) in codes.iter_mut().zip(steps).zip(v) {
                        // a weight that does not move may lie outside the limits; its step is 0, or NaN
                        // if the factor has overflowed
                        if step == 0.0 || step.is_nan() {
                            continue;
                        }
                        let new = f64::from(*code) - round_at_random(step, u);
                        let kept = new.max(f64::from(least)).min(f64::from(most));
                        ends += usize::from(kept != new);
                        *code = kept as i8;
                    }
                    saturated.fetch_add(ends, Ordering::Relaxed);
                });
            });
        }
        saturated.into_inner()
    }

    /// The options, the seed and the step, which suffice to continue with the same codes.
    pub fn state_dict(&self) -> StateDict {
        let mut dict = StateDict::new(SAVED_NAME);
        let mut record = Record::new(ESTIMATOR, &mut dict);
        // all 64 bits survive
        record.scalar("seed", Scalar::Int(self.config.seed as i64));
        record.scalar("step", Scalar::Int(self.step as i64));
        save_options(&mut self.config.clone(), &mut Record::new(OPTIONS, &mut dict));
        dict
    }

    /// Continues from a saved state.
    ///
    /// # Errors
    /// [`Error::StateDict`] names the key. Nothing has changed then.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let saved = Saved::open(SAVED_NAME, state)?;
        let (seed, step) = (saved.integer("seed")?, saved.count("step")?);
        let mut config = IntegerQuzo { seed, ..self.config.clone() };
        saved.options(&mut config)?;
        saved.finish()?;
        (self.config, self.step, self.noise) = (config, step, Philox::new(seed));
        Ok(())
    }
}
