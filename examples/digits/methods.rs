//! The methods that can be compared: one line each.

use eigenstep::error_feedback::Momentum;
use eigenstep::linalg::Damping;
use eigenstep::optim::MethodFor;
use eigenstep::prelude::*;
use eigenstep::second_order::soap::BasisStorage;

/// An optimizer of any method.
pub type Boxed = Box<dyn Optimizer<f32>>;

/// Factor on the learning rate over a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// Linear rise, then half a cosine down to 0.
    Cosine,
    /// None.
    Constant,
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Name as in `--methods`.
    pub name: &'static str,
    /// Makes the optimizer, with its state stored as told.
    pub build: fn(Precision) -> Result<Boxed>,
    /// What the slots are stored in unless `--precision` says otherwise.
    pub precision: Precision,
    /// What has few bits although slots are in full precision.
    pub coded: Option<&'static str>,
    /// Learning-rate schedule.
    pub schedule: Schedule,
    /// Estimates the gradient from losses alone, along so many directions; else it is computed.
    pub directions: Option<usize>,
    /// Whether it runs when no `--methods` are given.
    pub by_default: bool,
}

/// Every method, in the order of the report. A new one is a new line.
#[rustfmt::skip] // one line, one method
pub fn table() -> Vec<Method> {
    vec![
        method("sgd", |p| boxed(Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() }, p)),
        method("adamw", adamw),
        method("lion", |p| boxed(Lion { lr: 5e-4, betas: (0.95, 0.98), weight_decay: 0.1, ..Lion::default() }, p)),
        method("prodigy", |p| boxed(Prodigy { use_bias_correction: true, safeguard_warmup: true, ..Prodigy::default() }, p)),
        method("schedule-free", |p| boxed(ScheduleFreeAdamW { lr: 1e-2, warmup_steps: 50, ..ScheduleFreeAdamW::default() }, p)).constant_lr(),
        method("adamw-8bit", adamw).stored_in(Precision::INT8_LINEAR),
        method("adamw-4bit", adamw).stored_in(Precision::INT4),
        method("shampoo", |p| shampoo(FactorStorage::Dense, p)),
        method("shampoo-4bit", |p| shampoo(FactorStorage::EIGEN4, p)).coding("int4 factors"),
        method("soap", |p| soap(BasisStorage::Full, p)),
        method("soap-4bit", |p| soap(BasisStorage::FOUR_BIT, p)).coding("int4 basis"),
        method("muon", |p| matrix(Muon { lr: 0.02, fallback_lr_ratio: 0.25, weight_decay: 0.01, ..Muon::default() }, p)),
        method("s-mfac", |p| windowed(MFac { base: Momentum { lr: 0.02, ..Momentum::default() }, window: 64, damping: 1e-2, ..MFac::sparse(0.01) }, p)),
        method("s-ggt", |p| windowed(Ggt { base: Momentum { lr: 0.5, ..Momentum::default() }, window: 50, eps: 1e-2, ..Ggt::sparse(0.01) }, p)),
        method("mezo-adamw", |p| boxed(AdamW { lr: 3e-3, weight_decay: 0.0, ..AdamW::default() }, p)).estimated(32),
        method("adamw-8bit-dynamic", adamw).stored_in(Precision::INT8_DYNAMIC).on_request(),
        method("adamw-4bit-lpmm", adamw).stored_in(Precision::INT4_LPMM).on_request(),
        method("adamw-bf16", adamw).stored_in(Precision::Bf16).on_request(),
        method("adam", |p| boxed(Adam { lr: 5e-3, ..Adam::default() }, p)).on_request(),
        method("adagrad", |p| boxed(Adagrad { lr: 4e-2, ..Adagrad::default() }, p)).on_request(),
        method("rmsprop", |p| boxed(RmsProp { lr: 2e-3, ..RmsProp::default() }, p)).on_request(),
        method("lamb", |p| boxed(Lamb { lr: 5e-3, ..Lamb::default() }, p)).on_request(),
        method("classp", |p| boxed(Classp { lr: 5e-2, threshold: 0.0, power: 2.0, ..Classp::default() }, p)).on_request(),
    ]
}

fn adamw(precision: Precision) -> Result<Boxed> {
    boxed(AdamW { lr: 5e-3, weight_decay: 0.01, ..AdamW::default() }, precision)
}

fn shampoo(storage: FactorStorage, precision: Precision) -> Result<Boxed> {
    let inner = AdamW { lr: 5e-3, weight_decay: 0.01, ..AdamW::default() };
    let (update_factors_every, update_roots_every) = (5, 10);
    let damping = Damping::relative(1e-4);
    let shampoo = Shampoo {
        inner,
        storage,
        damping,
        update_factors_every,
        update_roots_every,
        ..Shampoo::default()
    };
    matrix(shampoo, precision)
}

fn soap(storage: BasisStorage, precision: Precision) -> Result<Boxed> {
    let inner = AdamW { lr: 5e-3, ..Soap::default().inner };
    matrix(Soap { storage, ..Soap::with_inner(inner) }, precision)
}

fn matrix<M: MatrixMethod>(method: M, precision: Precision) -> Result<Boxed> {
    Ok(Box::new(method.build()?.with_state_precision(precision)?))
}

fn windowed<V: VectorMethod>(method: V, precision: Precision) -> Result<Boxed>
where
    V::Inner: MethodFor<f32>,
{
    Ok(Box::new(method.build()?.with_state_precision(precision)?))
}

fn boxed<R: Rule>(rule: R, precision: Precision) -> Result<Boxed> {
    Ok(Box::new(rule.build()?.with_state_precision(precision)?))
}

fn method(name: &'static str, build: fn(Precision) -> Result<Boxed>) -> Method {
    let (precision, schedule) = (Precision::Full, Schedule::Cosine);
    Method { name, build, precision, coded: None, schedule, directions: None, by_default: true }
}

impl Method {
    fn constant_lr(self) -> Self {
        Self { schedule: Schedule::Constant, ..self }
    }

    fn stored_in(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    fn coding(self, coded: &'static str) -> Self {
        Self { coded: Some(coded), ..self }
    }

    /// What its state is stored in, with its slots in `precision`.
    pub fn stored(&self, precision: Precision) -> &'static str {
        self.coded.unwrap_or(precision_name(precision))
    }

    fn estimated(self, directions: usize) -> Self {
        Self { directions: Some(directions), ..self }
    }

    fn on_request(self) -> Self {
        Self { by_default: false, ..self }
    }
}

/// The precisions, as `--precision` and the report call them.
pub const PRECISIONS: [(&str, Precision); 6] = [
    ("full", Precision::Full),
    ("bf16", Precision::Bf16),
    ("int8", Precision::INT8_LINEAR),
    ("int8-dynamic", Precision::INT8_DYNAMIC),
    ("int4", Precision::INT4),
    ("int4-lpmm", Precision::INT4_LPMM),
];

/// What `precision` is called.
pub fn precision_name(precision: Precision) -> &'static str {
    PRECISIONS.iter().find(|(_, known)| *known == precision).map_or("other", |(name, _)| name)
}
