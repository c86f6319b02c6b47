use super::compressed_window::add_gradient;
use super::compressor::{Message, Selection};
use super::compressor_config::{CompressorConfig, Compressors};
use super::residual::{Residual, ResidualFormat};
use crate::error::Result;
use crate::first_order::Adagrad;
use crate::hyper::{Hyper, Hyperparameters};
use crate::numeric::Real;
use crate::optim::{
    Blocked, Direction, Elementwise, Layout, MatrixMethod, Method, Rule, Scope, VectorMemory,
    VectorMethod, VectorStep,
};
use crate::state::{Lookup, Record, StateBytes};

/// Error feedback around any rule or matrix method. The method gets a compressed gradient, and what
/// the compression drops is added to the next gradient.
///
/// *Use it when* you want to know how a method does on compressed gradients. *Not when* you want to
/// save memory: the inner method keeps its whole state. [`MFac::sparse`](super::MFac::sparse) and
/// [`MicroAdam`](super::MicroAdam) store compressed gradients.
///
/// ```text
/// a = ξ + g
/// c = C(a)
/// ξ ← a − c
/// p ← method(p, c)
/// ```
/// Over all steps nothing is lost: `Σc + ξ = Σg`. The learning rate is applied after the feedback, so
/// a schedule acts on old residuals, too.
///
/// | field | default | |
/// |---|---|---|
/// | `method` | – | the inner method: [`ErrorFeedback::rule`] takes a rule, [`ErrorFeedback::matrix`] a matrix method |
/// | `compressor` | the largest 1 % | any [`CompressorConfig`] |
/// | `feedback` | true | false: what the compression drops is lost |
/// | `residual` | `Full` | the format of ξ |
/// | `scope` | `Group` | which parameters are compressed together |
///
/// State: ξ with 4 bytes per `f32` parameter (2 in 16 bits, 0.6 in 4 bits), the last compressed
/// gradient, and the states of the compressor and of the inner method.
///
/// # Errors
/// `build` refuses options out of range. Unless `feedback` is off, the first step refuses a
/// compressor that is not a contraction for the vector, such as coarse QSGD for a long vector. Unless
/// the scope is `Tensor`, a step refuses a parameter that was absent at the first step.
///
/// # Examples
/// Lion on the largest tenth of every gradient:
/// ```
/// use eigenstep::error_feedback::{ErrorFeedback, CompressorConfig, Selection};
/// use eigenstep::prelude::*;
/// use ndarray::Array1;
///
/// let target = Array1::from_iter((0..20).map(f64::from));
/// let mut w = Array1::<f64>::zeros(20);
/// let lion = Lion { lr: 0.1, ..Lion::default() };
/// let compressor = CompressorConfig::TopK(Selection::TopK { density: 0.1 });
/// let mut opt = ErrorFeedback { compressor, ..ErrorFeedback::rule(lion) }.build()?;
/// for step in 0..1500 {
///     opt.set_lr(0, 0.1 * (1.0 - f64::from(step) / 1500.0))?;
///     let grad = &w - &target;
///     opt.step(&mut w, &grad)?;
/// }
/// assert!((w - target).iter().all(|x: &f64| x.abs() < 1.0));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// EFCP can also apply the learning rate inside the feedback, `a = ξ + γg`. This crate does not offer
/// that: with a constant rate both are the same.
///
/// # Source
/// F. Seide, H. Fu, J. Droppo, G. Li, D. Yu, "1-Bit Stochastic Gradient Descent and its Application to
/// Data-Parallel Distributed Training of Speech DNNs", 2014; S. U. Stich, J.-B. Cordonnier, M. Jaggi,
/// "Sparsified SGD with Memory", NeurIPS 2018; S. P. Karimireddy, Q. Rebjock, S. U. Stich, M. Jaggi,
/// "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", ICML 2019.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default = "ErrorFeedback::of_file", deny_unknown_fields, remote = "Self")
)]
#[cfg_attr(feature = "serde", serde(bound(deserialize = "M: Default + serde::Deserialize<'de>")))]
pub struct ErrorFeedback<M> {
    /// The inner method, which gets the compressed gradient.
    pub method: M,
    /// How a gradient is compressed.
    pub compressor: CompressorConfig,
    /// Whether the residual is added to the next gradient.
    pub feedback: bool,
    /// The format of the residual.
    pub residual: ResidualFormat,
    /// Which parameters are compressed together.
    pub scope: Scope,
}
crate::config_file::named_fields!(ErrorFeedback<M>, M);

impl<M: Default> ErrorFeedback<M> {
    /// The defaults of a configuration file.
    #[cfg(feature = "serde")]
    fn of_file() -> Self {
        Self::around(M::default())
    }
}

/// Adagrad on sparse gradients with error feedback: the method of EFCP's theory.
///
/// `G ← G + c²; p ← p − γ·c/(√G + ε)` for the largest elements `c` of `ξ + g`. [`EfAdagrad::sparse`]
/// takes the largest in magnitude, [`EfAdagrad::scaled`] the largest relative to `√G`.
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::EfAdagrad;
/// use eigenstep::prelude::*;
///
/// let mut w = ndarray::array![1.0f64, -2.0, 3.0];
/// let adagrad = Adagrad { lr: 0.5, eps: 1e-10, ..Adagrad::default() };
/// let mut opt = EfAdagrad::sparse(adagrad, 0.34).build()?;
/// for _ in 0..300 {
///     let grad = w.clone();
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x: &f64| x.abs() < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// I. Modoranu, A. Kalinov, E. Kurtic, E. Frantar, D. Alistarh, "Error Feedback Can Accurately
/// Compress Preconditioners", ICML 2024.
pub type EfAdagrad = ErrorFeedback<Elementwise<Adagrad>>;

impl<M> ErrorFeedback<M> {
    /// The defaults, around a method in the form in which the engine runs it.
    pub fn around(method: M) -> Self {
        let compressor = CompressorConfig::TopK(Selection::TopK { density: 0.01 });
        let residual = ResidualFormat::Full;
        Self { method, compressor, feedback: true, residual, scope: Scope::Group }
    }
}

impl<U: Rule + Default> Default for ErrorFeedback<Elementwise<U>> {
    fn default() -> Self {
        Self::rule(U::default())
    }
}

impl<U: Rule> ErrorFeedback<Elementwise<U>> {
    /// The defaults, around a rule.
    pub fn rule(rule: U) -> Self {
        Self::around(Elementwise(rule))
    }

    /// A rule on the largest elements of every gradient, a share of `density`.
    pub fn sparse(rule: U, density: f64) -> Self {
        let compressor = CompressorConfig::TopK(Selection::TopK { density });
        Self { compressor, ..Self::rule(rule) }
    }
}

impl EfAdagrad {
    /// Adagrad on the elements of every gradient that it moves furthest, a share of `density`: those
    /// with the largest `|ξ + g|/√G`. `G` starts at the rule's `eps`; `build` refuses an `eps` of 0.
    pub fn scaled(adagrad: Adagrad, density: f64) -> Self {
        let (selection, eps) = (Selection::TopK { density }, adagrad.eps);
        let compressor = CompressorConfig::ScaledTopK { selection, eps };
        let rule = Adagrad { initial_accumulator_value: eps, ..adagrad };
        Self { compressor, ..Self::rule(rule) }
    }
}

impl<C: MatrixMethod> ErrorFeedback<Blocked<C>> {
    /// The defaults, around a matrix method.
    pub fn matrix(method: C) -> Self {
        Self::around(Blocked(method))
    }
}

impl<M: Method> Hyperparameters for ErrorFeedback<M> {
    const NAME: &'static str = "ErrorFeedback";

    /// The inner method's options under their own names.
    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        let mut config = self.method.config().clone();
        config.visit_options(visitor);
        self.method = M::new(config);
    }

    fn validate_together(&self) -> Result<()> {
        self.method.config().validate_together()?;
        self.compressor.validate(Self::NAME)?;
        self.residual.validate(Self::NAME)
    }
}

/// The state of [`ErrorFeedback`] for one vector.
#[derive(Clone, Debug)]
pub struct FeedbackMemory<R: Real> {
    /// The pieces of the vector that are compressed separately.
    pieces: Vec<Piece<R>>,
    compressors: Compressors<R>,
}

#[derive(Clone, Debug)]
struct Piece<R> {
    offset: usize,
    numel: usize,
    residual: Residual<R>,
    sent: Sent<R>,
}

/// The compressed gradient of this step.
#[derive(Clone, Debug)]
enum Sent<R> {
    /// Some elements, by indices and values.
    Sparse(Vec<u32>, Vec<R>),
    /// All elements.
    Dense(Vec<R>),
}

impl<R: Real> Sent<R> {
    /// Reads a message, and subtracts its vector from `a`.
    fn of(message: Message<R>, a: &mut [R]) -> Self {
        match message.into_entries() {
            Ok((indices, values)) => {
                for (&index, &value) in indices.iter().zip(&values) {
                    if let Some(a) = a.get_mut(index as usize) {
                        *a -= value;
                    }
                }
                Self::Sparse(indices, values)
            }
            Err(message) => {
                let mut values = vec![R::zero(); a.len()];
                message.decompress_into(&mut values);
                a.iter_mut().zip(&values).for_each(|(a, &c)| *a -= c);
                Self::Dense(values)
            }
        }
    }

    /// Writes the elements from `offset` on.
    fn read(&self, offset: usize, out: &mut [R]) {
        match self {
            Self::Dense(values) => {
                let values = values.get(offset..).unwrap_or_default();
                out.iter_mut().zip(values).for_each(|(x, &value)| *x = value);
            }
            Self::Sparse(indices, values) => {
                out.fill(R::zero());
                let end = offset + out.len();
                let first = indices.partition_point(|&index| (index as usize) < offset);
                for (&index, &value) in indices.iter().zip(values).skip(first) {
                    let index = index as usize;
                    if index >= end {
                        return;
                    }
                    if let Some(x) = out.get_mut(index - offset) {
                        *x = value;
                    }
                }
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Dense(values) => size_of_val(values.as_slice()),
            Self::Sparse(indices, values) => {
                size_of_val(indices.as_slice()) + size_of_val(values.as_slice())
            }
        }
    }
}

impl<R: Real> Piece<R> {
    fn update(
        &mut self,
        step: &VectorStep<'_, R>,
        feedback: bool,
        compress: impl FnOnce(&[R]) -> Message<R>,
    ) {
        let Self { offset, numel, residual, sent } = self;
        *sent = residual.update(0, *numel, (step.t, *offset as u32), |a| {
            add_gradient(step, *offset, feedback, a);
            Sent::of(compress(a), a)
        });
    }
}

impl<R: Real> Direction<R> for FeedbackMemory<R> {
    fn compute(&self, offset: usize, out: &mut [R]) {
        let end = offset + out.len();
        for piece in &self.pieces {
            let (first, last) = (offset.max(piece.offset), end.min(piece.offset + piece.numel));
            if let Some(out) = out.get_mut(first.wrapping_sub(offset)..last.wrapping_sub(offset)) {
                piece.sent.read(first - piece.offset, out);
            }
        }
    }
}

impl<R: Real> VectorMemory for FeedbackMemory<R> {
    fn count(&self, bytes: &mut StateBytes) {
        for piece in &self.pieces {
            piece.residual.count_bytes(bytes);
            bytes.add("sent", piece.sent.bytes());
        }
        bytes.add("compressor", self.compressors.bytes());
    }

    fn save(&self, record: &mut Record<'_>) {
        for (index, piece) in self.pieces.iter().enumerate() {
            piece.residual.save(&mut record.nested(&format!("pieces.{index}")));
        }
        self.compressors.save(record);
    }
}

impl<M: Method> VectorMethod for ErrorFeedback<M> {
    type Inner = M;
    type Memory<R: Real> = FeedbackMemory<R>;

    fn inner(&self) -> M {
        self.method.clone()
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        (self.compressor, self.residual) == (changed.compressor, changed.residual)
    }

    fn check_layout(&self, layout: &Layout) -> Result<()> {
        self.compressor.check_layout(Self::NAME, layout, self.feedback)
    }

    fn init<R: Real>(&self, layout: &Layout) -> FeedbackMemory<R> {
        let piece = |(offset, numel)| {
            let residual = Residual::new(self.residual, numel);
            Piece { offset, numel, residual, sent: Sent::Sparse(Vec::new(), Vec::new()) }
        };
        let pieces = self.compressor.pieces(layout).into_iter().map(piece).collect();
        FeedbackMemory { pieces, compressors: Compressors::new(&self.compressor, layout) }
    }

    fn load<R: Real>(&self, layout: &Layout, lookup: &Lookup<'_>) -> Result<FeedbackMemory<R>> {
        let mut unused = Compressors::new(&self.compressor, layout);
        let piece = |(index, (offset, numel))| {
            let lookup = lookup.nested(&format!("pieces.{index}"));
            let residual = Residual::load_state(self.residual, numel, &lookup)?;
            // the next step replaces it; it has the size of a real one, so that loading a state does not
            // change the bytes that are counted
            let mut zeros = vec![R::zero(); numel];
            let sent = Sent::of(unused.compress(index, 1, &zeros), &mut zeros);
            Ok(Piece { offset, numel, residual, sent })
        };
        let pieces = self.compressor.pieces(layout).into_iter().enumerate().map(piece);
        let pieces = pieces.collect::<Result<_>>()?;
        Ok(FeedbackMemory {
            pieces,
            compressors: Compressors::load(&self.compressor, layout, lookup)?,
        })
    }

    fn absorb<R: Real>(&self, step: &VectorStep<'_, R>, memory: &mut FeedbackMemory<R>) {
        for (index, piece) in memory.pieces.iter_mut().enumerate() {
            let compressors = &mut memory.compressors;
            piece.update(step, self.feedback, |a| compressors.compress(index, step.t, a));
        }
    }
}
