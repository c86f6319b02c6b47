use super::history_clip::{NormBound, NormMemory};

/// AutoClip: the limit is a quantile of the norms so far.
///
/// ```text
/// history ← history, ‖g‖
/// g ← g·min(1, quantile(history)/(‖g‖ + 1e-6))
/// ```
/// | field | default | source of the default |
/// |---|---|---|
/// | `quantile` | 0.1 | paper, its 10th percentile: most gradients are scaled down to a small norm; in [0, 1] |
/// | `window` | 0: all | paper; norms that are kept, 8 bytes each |
///
/// Quantiles between two norms are interpolated on a straight line, as numpy's are. The first gradients are left
/// alone. Gradients of norm 0 count like any others, as in the authors' code.
///
/// # Examples
/// ```
/// use eigenstep::gradient::{AutoClip, NormBound};
/// use ndarray::array;
///
/// let mut clip = AutoClip { quantile: 0.5, ..AutoClip::default() }.build()?;
/// for (norm, limit) in [(4.0_f64, 4.0_f64), (2.0, 3.0), (9.0, 4.0)] {
///     let factor = clip.clip(&array![norm])?.factor();
///     assert!((factor * norm - limit.min(norm)).abs() < 1e-5);
/// }
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// # Source
/// P. Seetharaman, G. Wichern, B. Pardo, J. Le Roux, "AutoClip: Adaptive Gradient Clipping for Source Separation
/// Networks", MLSP 2020.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct AutoClip {
    /// Share of the norms below the limit.
    pub quantile: f64,
    /// Number of norms that are kept; 0 for all.
    pub window: u64,
}
crate::config_file::named_fields!(AutoClip);

impl Default for AutoClip {
    fn default() -> Self {
        Self { quantile: 0.1, window: 0 }
    }
}

crate::hyperparameters!(AutoClip, "AutoClip", {
    "quantile": Unit = quantile;
    "window": CountFrom(0) = window;
});

impl AutoClip {
    /// How many of this number of norms are kept.
    fn kept(&self, norms: usize) -> usize {
        if self.window == 0 { norms } else { norms.min(self.window as usize) }
    }
}

impl NormBound for AutoClip {
    fn bound(&self, memory: &NormMemory, norm: f64) -> f64 {
        let before = memory.norms.len();
        let first = before + 1 - self.kept(before + 1);
        let kept = memory.norms.get(first..).unwrap_or_default();
        quantile(kept.iter().copied().chain([norm]).collect(), self.quantile)
    }

    fn observe(&self, memory: &mut NormMemory, norm: f64) {
        memory.count += 1;
        memory.norms.push(norm);
        memory.norms.drain(..memory.norms.len() - self.kept(memory.norms.len()));
    }
}

/// The number below which this share of the numbers lie, on a straight line between the two nearest.
fn quantile(mut numbers: Vec<f64>, share: f64) -> f64 {
    let place = share * numbers.len().saturating_sub(1) as f64;
    let (_, low, above) = numbers.select_nth_unstable_by(place.floor() as usize, f64::total_cmp);
    let high = above.iter().copied().min_by(f64::total_cmp).unwrap_or(*low);
    *low + (high - *low) * place.fract()
}
