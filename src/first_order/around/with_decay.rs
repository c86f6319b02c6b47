use super::checks::{check_direction, same_sign};
use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters, OptionValue, Range};
use crate::numeric::Real;
use crate::optim::{Apply, Rule, RuleAround, WeightDecay};

/// Any rule with its weight decay in another form.
///
/// *Use it when* a rule decays in a way that does not suit you: coupled where you want it decoupled, in
/// step with the learning rate where you want it to fall faster, or against the direction of the step.
/// *Not when* the rule's own options say what you mean: `Adam`, `Lion` and others have
/// `decoupled_weight_decay`.
///
/// For the inner rule's `weight_decay` λ, its direction u, the gradient g (negated with `maximize`) and the
/// learning rate γ of the step:
/// ```text
/// form               step
/// Inner              as the rule has it
/// None               p ← p − γu
/// Coupled            g ← g + λp, before the rule sees g
/// Decoupled          p ← p·(1 − γλ) − γu
/// DecoupledAfter     p ← (p − γu)·(1 − γλ)
/// Independent        p ← p·(1 − λ) − γu
/// Corrected          p ← p·(1 − γλ·γ/γmax) − γu         γmax = peak_lr
/// Cautious           p ← p·(1 − γλ) − γu where u·p > 0, else p ← p − γu
/// ```
/// Around [`Adafactor::original`](crate::first_order::Adafactor::original) the decay of a weight is multiplied
/// by α/γ, in every form but `Coupled` and `None`.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `inner` | the inner rule's | – |
/// | `decay_form` | `Inner` | – |
/// | `peak_lr` γmax | 1e-3 | –; the highest learning rate of the schedule, for `Corrected` |
///
/// State: that of the inner rule.
///
/// # Errors
/// `build` refuses a `peak_lr` that is not above 0; any form but `Inner` around a rule that applies its
/// `weight_decay` itself, such as `Lamb`, `NovoGrad` or `Momo`, if that `weight_decay` is not 0, which
/// `with_group` and `set_option` refuse later, too (a rule that decays nothing is accepted with any form, which
/// then has no effect); and `Cautious` around an inner rule whose step
/// is not its direction times the learning rate ([`Rule::has_own_update`]).
///
/// # Examples
/// Decay only where it goes along with the step:
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0f64, 1.0];
/// let sgd = Sgd { lr: 0.1, weight_decay: 0.5, ..Sgd::default() };
/// let mut opt = WithDecay { decay_form: DecayForm::Cautious, ..WithDecay::with_inner(sgd) }.build()?;
/// opt.step(&mut w, &array![1.0, -1.0])?;
/// assert_eq!(w, array![0.95 - 0.1, 1.0 + 0.1]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019; `Corrected`: A. Defazio,
/// "Why Gradients Rapidly Increase Near the End of Training", 2025; `Cautious`: L. Chen, J. Li, K. Liang,
/// B. Su, C. Xie, N. W. Pierse, C. Liang, N. Lao, Q. Liu, "Cautious Weight Decay", 2025.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct WithDecay<U> {
    /// The inner rule, with its `weight_decay`.
    pub inner: U,
    /// How the decay acts.
    pub decay_form: DecayForm,
    /// The highest learning rate of the schedule, `> 0`, for [`DecayForm::Corrected`].
    pub peak_lr: f64,
}
crate::config_file::named_fields!(WithDecay<U>, U);

/// Forms of weight decay; the page of [`WithDecay`] has the equations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum DecayForm {
    /// As the inner rule has it.
    #[default]
    Inner,
    /// No decay.
    None,
    /// Added to the gradient: L2 regularisation.
    Coupled,
    /// On the parameter, before the step.
    Decoupled,
    /// On the parameter, after the step.
    DecoupledAfter,
    /// On the parameter, whatever the learning rate.
    Independent,
    /// Decoupled, and once more in proportion to the learning rate.
    Corrected,
    /// Decoupled, where the direction of the step points the same way.
    Cautious,
}

const FORMS: [DecayForm; 8] = [
    DecayForm::Inner,
    DecayForm::None,
    DecayForm::Coupled,
    DecayForm::Decoupled,
    DecayForm::DecoupledAfter,
    DecayForm::Independent,
    DecayForm::Corrected,
    DecayForm::Cautious,
];
const NAMES: &[&str] = &[
    "Inner",
    "None",
    "Coupled",
    "Decoupled",
    "DecoupledAfter",
    "Independent",
    "Corrected",
    "Cautious",
];

impl OptionValue for DecayForm {
    fn get(&self) -> f64 {
        f64::from(*self as u8)
    }
    fn set(&mut self, value: f64) {
        *self = FORMS.get(value as usize).copied().unwrap_or_default();
    }
}

impl<U> WithDecay<U> {
    /// A rule with its decay as it is.
    pub fn with_inner(inner: U) -> Self {
        Self { inner, decay_form: DecayForm::Inner, peak_lr: 1e-3 }
    }
}

impl<U: Default> Default for WithDecay<U> {
    fn default() -> Self {
        Self::with_inner(U::default())
    }
}

impl<U: Rule> Hyperparameters for WithDecay<U> {
    const NAME: &'static str = "WithDecay";

    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.inner.visit_options(visitor);
        visitor(Hyper {
            name: "decay_form",
            range: Range::Choice(NAMES),
            value: &mut self.decay_form,
        });
        visitor(Hyper { name: "peak_lr", range: Range::Positive, value: &mut self.peak_lr });
    }

    fn validate_together(&self) -> Result<()> {
        self.inner.validate_together()?;
        let decays = self.inner.option("weight_decay").is_some_and(|decay| decay != 0.0);
        // what such rules return, if anything, is not their `weight_decay`
        let inside = matches!(self.inner.decay(), WeightDecay::None | WeightDecay::Independent(_));
        if self.decay_form != DecayForm::Inner && decays && inside {
            let expected = "`Inner` around a rule that applies its weight decay itself";
            let found = NAMES.get(self.decay_form as usize).copied().unwrap_or_default();
            return Err(Self::invalid("decay_form", expected, found));
        }
        if self.decay_form == DecayForm::Cautious {
            return check_direction::<Self, U>(&self.inner);
        }
        Ok(())
    }
}

/// Coefficients of the inner rule, and whether decay is cautious.
#[derive(Clone, Copy, Debug)]
pub struct WithDecayCoefficients<C> {
    inner: C,
    cautious: bool,
}

impl<U: Rule> RuleAround for WithDecay<U> {
    type Inner = U;
    type Coefficients<R: Real> = WithDecayCoefficients<U::Coefficients<R>>;
    type State<R: Real> = U::State<R>;

    fn inner(&self) -> &U {
        &self.inner
    }

    fn coefficients<R: Real>(&self, t: u64, group: &U::GroupState) -> Self::Coefficients<R> {
        let cautious = self.decay_form == DecayForm::Cautious;
        WithDecayCoefficients { inner: self.inner.coefficients(t, group), cautious }
    }

    fn inner_coefficients<R: Real>(c: &Self::Coefficients<R>) -> &U::Coefficients<R> {
        &c.inner
    }

    fn inner_coefficients_mut<R: Real>(c: &mut Self::Coefficients<R>) -> &mut U::Coefficients<R> {
        &mut c.inner
    }

    fn inner_state<R: Real>(s: U::State<R>) -> U::State<R> {
        s
    }

    fn with_inner_state<R: Real>(_: U::State<R>, inner: U::State<R>) -> U::State<R> {
        inner
    }

    #[inline(always)]
    fn update<R: Real>(
        c: &Self::Coefficients<R>,
        a: &Apply<R>,
        p: R,
        g: R,
        s: U::State<R>,
    ) -> (R, U::State<R>) {
        if !c.cautious {
            return U::update(&c.inner, a, p, g, s);
        }
        let (u, s) = U::direction(&c.inner, p, g, s);
        let decayed = if same_sign(u, p) { p * a.shrink } else { p };
        (decayed - a.lr * u, s)
    }

    fn has_own_update(&self) -> bool {
        self.decay_form == DecayForm::Cautious || self.inner.has_own_update()
    }

    fn decay(&self) -> WeightDecay {
        let own = self.inner.decay();
        let decay = own.amount();
        match self.decay_form {
            DecayForm::Inner => own,
            DecayForm::None => WeightDecay::None,
            DecayForm::Coupled => WeightDecay::Coupled(decay),
            DecayForm::Decoupled | DecayForm::Cautious => WeightDecay::Decoupled(decay),
            DecayForm::DecoupledAfter => WeightDecay::DecoupledAfter(decay),
            DecayForm::Independent => WeightDecay::Independent(decay),
            DecayForm::Corrected => WeightDecay::Corrected { decay, peak_lr: self.peak_lr },
        }
    }
}
crate::rule_around!(WithDecay);
