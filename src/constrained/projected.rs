use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters, Range as Admissible};
use crate::numeric::Real;
use crate::optim::{Apply, Rule, RuleAround};

/// Any rule whose parameters stay within bounds.
///
/// *Use it when* parameters make sense only within a range: amounts, probabilities, adversarial
/// perturbations of limited size. *Not when* a smooth substitution is possible: momentum then does not push
/// against the bounds.
///
/// ```text
/// p ← min(max(step of the rule, lower), upper)
/// ```
/// This is the nearest admissible point in the Euclidean norm, and in every weighted one,
/// `Σ wᵢ(pᵢ − qᵢ)²`, such as Adam's with `w = √v̂`. The state of the rule is not projected. NaN stays NaN.
/// The first step moves elements outside the bounds into them; parameters without a gradient stay as they
/// are. Bounds are rounded to the arithmetic type; `bf16` and `f16` parameters are rounded once more.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `inner` | the rule's own | – |
/// | `lower` | −∞ | – |
/// | `upper` | +∞ | – |
///
/// ZO-AdaMM is `Projected<Adam>` with `bias_correction: false` and `amsgrad: true`.
///
/// State: that of the rule.
///
/// # Errors
/// `build` refuses NaN, `lower > upper`, and rules with an evaluation point, such as Schedule-Free: the
/// projection of one point does not fit the other.
///
/// # Examples
/// ```
/// use eigenstep::{constrained::Projected, prelude::*};
/// use ndarray::array;
///
/// let mut w = array![0.5f32, 0.5];
/// let inner = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() };
/// let mut opt = Projected { lower: 0.0, upper: 1.0, ..Projected::with_inner(inner) }.build()?;
/// for _ in 0..100 {
///     let grad = &w - &array![3.0, 0.25]; // the nearest point to (3, 1/4)
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w[0] == 1.0 && (w[1] - 0.25).abs() < 0.01);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// X. Chen, S. Liu, K. Xu, X. Li, X. Lin, M. Hong, D. Cox, "ZO-AdaMM: Zeroth-Order Adaptive Momentum
/// Method for Black-Box Optimization", NeurIPS 2019.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Projected<R> {
    /// The inner rule.
    pub inner: R,
    /// Smallest value of a parameter; may be `−∞`.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub lower: f64,
    /// Largest value of a parameter; may be `+∞`.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub upper: f64,
}
crate::config_file::named_fields!(Projected<R>, R);

impl<R> Projected<R> {
    /// This rule without bounds.
    pub fn with_inner(inner: R) -> Self {
        Self { inner, lower: f64::NEG_INFINITY, upper: f64::INFINITY }
    }
}

impl<R: Default> Default for Projected<R> {
    fn default() -> Self {
        Self::with_inner(R::default())
    }
}

impl<R: Rule> Hyperparameters for Projected<R> {
    const NAME: &'static str = "Projected";

    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.inner.visit_options(visitor);
        let range = Admissible::Number;
        visitor(Hyper { name: "lower", range, value: &mut self.lower });
        visitor(Hyper { name: "upper", range, value: &mut self.upper });
    }

    fn validate_together(&self) -> Result<()> {
        self.inner.validate_together()?;
        if R::HAS_EVAL_MODE {
            return Err(Self::invalid("inner", "a rule with one point", R::NAME));
        }
        if self.lower > self.upper {
            let expected = format!("at least `lower`, {}", self.lower);
            return Err(Self::invalid("upper", expected, self.upper.to_string()));
        }
        Ok(())
    }
}

/// Coefficients of the rule, and the bounds.
#[derive(Clone, Copy, Debug)]
pub struct ProjectedCoefficients<C, R> {
    inner: C,
    lower: R,
    upper: R,
}

impl<U: Rule> RuleAround for Projected<U> {
    type Inner = U;
    type Coefficients<R: Real> = ProjectedCoefficients<U::Coefficients<R>, R>;
    type State<R: Real> = U::State<R>;

    fn inner(&self) -> &U {
        &self.inner
    }

    fn coefficients<R: Real>(&self, t: u64, group: &U::GroupState) -> Self::Coefficients<R> {
        let (lower, upper) = (R::of(self.lower), R::of(self.upper));
        ProjectedCoefficients { inner: self.inner.coefficients(t, group), lower, upper }
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
        let (p, s) = U::update(&c.inner, a, p, g, s);
        // comparisons let NaN through, where min and max would hide it
        let p = if p < c.lower { c.lower } else { p };
        (if p > c.upper { c.upper } else { p }, s)
    }

    fn has_own_update(&self) -> bool {
        true
    }
}
crate::rule_around!(Projected);
