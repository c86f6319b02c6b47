use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters, Range};
use crate::numeric::Real;
use crate::optim::{Rule, Slot, WeightDecay};

/// AggMo: the mean of several momenta, one for each damping.
///
/// *Use it when* you want the long memory of a large momentum without its oscillations: the small ones damp them. *Not
/// when* memory is scarce, or one momentum works: each costs a slot.
///
/// ```text
/// g ← g + λp                              or, decoupled, p ← p·(1 − γλ)
/// bₖ ← βₖ·bₖ + g                          k = 0 … K − 1
/// p ← p − γ/K · Σₖ bₖ
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | pytorch_optimizer; paper 0.1 |
/// | `betas` β | [0, 0.9, 0.99] | paper: `βₖ = 1 − 0.1ᵏ` |
/// | `weight_decay` λ | 0 | authors' code |
/// | `decoupled_weight_decay` | false | authors' code |
/// | `maximize` | false | PyTorch |
///
/// `betas` has one to four elements, the options `betas.0` to `betas.3`; how many there are is fixed at `build`.
///
/// State: `momentum_buffer_0` to `momentum_buffer_3` (b), as many as there are `betas`, 4 bytes per `f32` parameter each.
///
/// # Errors
/// `build` refuses `lr` or `weight_decay` below 0, `betas` outside `[0, 1)`, none of them, and more than four.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![0.0f64];
/// let mut opt = AggMo { lr: 1.0, betas: vec![0.0, 0.5], ..AggMo::default() }.build()?;
/// opt.step(&mut w, &array![1.0])?; // (1 + 1)/2
/// opt.step(&mut w, &array![1.0])?; // (1 + 1.5)/2
/// assert_eq!(w[0], -2.25);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As the authors' code and `pytorch_optimizer.AggMo`, which take any number of betas. The buffers are sums, as in SGD with
/// momentum, so that a constant gradient moves a parameter by `γ/K·Σ 1/(1 − βₖ)` times itself per step: 37·γ with the defaults.
///
/// # Source
/// J. Lucas, S. Sun, R. Zemel, R. Grosse, "Aggregated Momentum: Stability Through Passive Damping", ICLR 2019.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct AggMo {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates `β` of the momenta, each in `[0, 1)`; one to four.
    pub betas: Vec<f64>,
    /// Weight decay `λ >= 0`, coupled unless `decoupled_weight_decay`.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does.
    pub decoupled_weight_decay: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(AggMo);

impl Default for AggMo {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: vec![0.0, 0.9, 0.99],
            weight_decay: 0.0,
            decoupled_weight_decay: false,
            maximize: false,
        }
    }
}

/// Most momenta.
const MOST: usize = 4;

impl Hyperparameters for AggMo {
    const NAME: &'static str = "AggMo";

    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        const NAMES: [&str; MOST] = ["betas.0", "betas.1", "betas.2", "betas.3"];
        visitor(Hyper { name: "lr", range: Range::NonNegative, value: &mut self.lr });
        for (name, beta) in NAMES.into_iter().zip(&mut self.betas) {
            visitor(Hyper { name, range: Range::UnitHalfOpen, value: beta });
        }
        let Self { weight_decay, decoupled_weight_decay, maximize, .. } = self;
        visitor(Hyper { name: "weight_decay", range: Range::NonNegative, value: weight_decay });
        let (name, range) = ("decoupled_weight_decay", Range::Flag);
        visitor(Hyper { name, range, value: decoupled_weight_decay });
        visitor(Hyper { name: "maximize", range: Range::Flag, value: maximize });
    }

    fn validate_together(&self) -> Result<()> {
        if (1..=MOST).contains(&self.betas.len()) {
            return Ok(());
        }
        let expected = format!("a list of 1 to {MOST} numbers");
        Err(Self::invalid("betas", expected, format!("{} numbers", self.betas.len())))
    }
}

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct AggMoCoefficients<R> {
    betas: [R; MOST],
    /// `1/K`, or 0 for momenta that there are not.
    shares: [R; MOST],
}

impl Rule for AggMo {
    type Coefficients<R: Real> = AggMoCoefficients<R>;
    type State<R: Real> = [R; MOST];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[
        Slot::signed("momentum_buffer_0"),
        Slot::signed("momentum_buffer_1").optional(),
        Slot::signed("momentum_buffer_2").optional(),
        Slot::signed("momentum_buffer_3").optional(),
    ];
    const GRADIENT_POWER: u32 = 1;

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> AggMoCoefficients<R> {
        let share = R::of(1.0 / self.betas.len() as f64);
        let beta = |k: usize| self.betas.get(k).map_or(R::zero(), |&beta| R::of(beta));
        AggMoCoefficients {
            betas: std::array::from_fn(beta),
            shares: std::array::from_fn(|k| if k < self.betas.len() { share } else { R::zero() }),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &AggMoCoefficients<R>,
        _p: R,
        g: R,
        [a, b, d, e]: [R; MOST],
    ) -> (R, [R; MOST]) {
        let ([beta0, beta1, beta2, beta3], [w0, w1, w2, w3]) = (c.betas, c.shares);
        let (a, b) = (beta0 * a + g, beta1 * b + g);
        let (d, e) = (beta2 * d + g, beta3 * e + g);
        (w0 * a + w1 * b + w2 * d + w3 * e, [a, b, d, e])
    }

    // the defaults of these look an option up in a copy of the rule, whose list would be allocated at every step
    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    fn decay(&self) -> WeightDecay {
        match self.decoupled_weight_decay {
            true => WeightDecay::Decoupled(self.weight_decay),
            false => WeightDecay::Coupled(self.weight_decay),
        }
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn uses_slot(&self, slot: usize) -> bool {
        slot < self.betas.len()
    }
}
