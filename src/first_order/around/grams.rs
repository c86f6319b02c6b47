use super::checks::check_direction;
use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters};
use crate::numeric::Real;
use crate::optim::{Rule, RuleAround};

/// Grams: the sizes of any rule's steps, with the signs of the current gradient.
///
/// *Use it when* momentum is to decide how far to go, but not where to. *Not when* gradients are so noisy
/// that their signs say little: then the average has to decide the sign, too.
///
/// ```text
/// u ← direction of the inner rule
/// u ← |u|·sign(g)                    sign(0) = 0
/// ```
/// `g` is the gradient as the inner rule sees it: negated with `maximize`, with coupled decay added. Learning
/// rate and decay are the inner rule's; decay that a rule keeps in its direction (`Lamb`, `NovoGrad`) gets the
/// sign of the gradient as all of `u` does. Grams of the paper is `Grams` around
/// [`AdamW`](crate::first_order::AdamW).
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `inner` | the inner rule's | – |
///
/// State: that of the inner rule.
///
/// # Errors
/// `build` refuses an inner rule whose step is not its direction times the learning rate
/// ([`Rule::has_own_update`]).
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![0.0f64];
/// let sgd = Sgd { lr: 1.0, momentum: 0.5, ..Sgd::default() };
/// let mut opt = Grams::with_inner(sgd).build()?;
/// opt.step(&mut w, &array![4.0])?;
/// opt.step(&mut w, &array![-1.0])?; // the momentum is +1, the gradient points the other way
/// assert_eq!(w, array![-4.0 + 1.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// The authors' `eps` is 1e-6, AdamW's here 1e-8: set it in `inner`.
///
/// # Source
/// Y. Cao, X. Li, Z. Song, "Grams: Gradient Descent with Adaptive Momentum Scaling", 2024.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Grams<U> {
    /// The inner rule.
    pub inner: U,
}
crate::config_file::named_fields!(Grams<U>, U);

impl<U> Grams<U> {
    /// The signs of gradients around a rule.
    pub fn with_inner(inner: U) -> Self {
        Self { inner }
    }
}

impl<U: Rule> Hyperparameters for Grams<U> {
    const NAME: &'static str = "Grams";

    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.inner.visit_options(visitor);
    }

    fn validate_together(&self) -> Result<()> {
        self.inner.validate_together()?;
        check_direction::<Self, U>(&self.inner)
    }
}

impl<U: Rule> RuleAround for Grams<U> {
    type Inner = U;
    type Coefficients<R: Real> = U::Coefficients<R>;
    type State<R: Real> = U::State<R>;

    fn inner(&self) -> &U {
        &self.inner
    }

    fn coefficients<R: Real>(&self, t: u64, group: &U::GroupState) -> U::Coefficients<R> {
        self.inner.coefficients(t, group)
    }

    fn inner_coefficients<R: Real>(c: &U::Coefficients<R>) -> &U::Coefficients<R> {
        c
    }

    fn inner_coefficients_mut<R: Real>(c: &mut U::Coefficients<R>) -> &mut U::Coefficients<R> {
        c
    }

    fn inner_state<R: Real>(s: U::State<R>) -> U::State<R> {
        s
    }

    fn with_inner_state<R: Real>(_: U::State<R>, inner: U::State<R>) -> U::State<R> {
        inner
    }

    #[inline(always)]
    fn direction<R: Real>(c: &U::Coefficients<R>, p: R, g: R, s: U::State<R>) -> (R, U::State<R>) {
        let (u, s) = U::direction(c, p, g, s);
        let size = if u < R::zero() { -u } else { u };
        let signed = if g < R::zero() { -size } else { size };
        // zero has no sign, and a NaN stays visible, be it of the gradient or of the direction
        let hidden = g == R::zero() && !u.is_nan();
        (if hidden || g.is_nan() { g } else { signed }, s)
    }
}
crate::rule_around!(Grams);
