//! RAdam's rectification: what the variance of a young second moment does to a step.

/// Length of the average of squares after `t` steps, `ρ = ρ∞ − 2t·β₂ᵗ/(1 − β₂ᵗ)` with `ρ∞ = 2/(1 − β₂) − 1`, and the
/// factor `√((ρ − 4)(ρ − 2)ρ∞/((ρ∞ − 4)(ρ∞ − 2)ρ))` on the learning rate, which is a number for `ρ > 4`.
///
/// L. Liu and others, "On the Variance of the Adaptive Learning Rate and Beyond", ICLR 2020.
pub(super) fn rectification(beta2: f64, t: u64) -> (f64, f64) {
    let (steps, power) = (t as f64, beta2.powf(t as f64));
    let longest = 2.0 / (1.0 - beta2) - 1.0;
    let length = longest - 2.0 * steps * power / (1.0 - power);
    let terms = |length: f64| (length - 4.0) * (length - 2.0) / length;
    (length, (terms(length) / terms(longest)).sqrt())
}
