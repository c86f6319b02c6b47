//! Fitness shaping: weights that evolution strategies use in place of the losses.

/// Fitness shaping: the weights that an estimate uses in place of the losses.
///
/// | shaping | weight of one of N losses |
/// |---|---|
/// | `None` | the loss itself |
/// | `CenteredRank` | `rank/(N − 1) − ½`, rank 0 for the smallest |
/// | `NesUtility` | `−(max(0, ln(N/2 + 1) − ln r)/Σ − 1/N)`, r = 1 for the smallest, Σ the sum of the numerators |
///
/// Equal losses get the mean of their weights. The two forms that use ranks give the same estimate for any
/// increasing function of the loss.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::FitnessShaping;
///
/// let mut weights = vec![30.0, 10.0, 20.0];
/// FitnessShaping::CenteredRank.apply(&mut weights);
/// assert_eq!(weights, [0.5, -0.5, 0.0]);
/// ```
///
/// # Source
/// T. Salimans, J. Ho, X. Chen, S. Sidor, I. Sutskever, "Evolution Strategies as a Scalable Alternative to
/// Reinforcement Learning", 2017; D. Wierstra et al., "Natural Evolution Strategies", 2014.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum FitnessShaping {
    /// The losses themselves.
    #[default]
    None,
    /// Ranks from −½ to ½.
    CenteredRank,
    /// The utilities of natural evolution strategies.
    NesUtility,
}

impl FitnessShaping {
    /// Replaces losses by their weights. NaN counts as the largest loss.
    pub fn apply(self, losses: &mut [f64]) {
        if self == Self::None {
            return;
        }
        let n = losses.len();
        let mut order: Vec<(f64, usize)> = losses.iter().copied().zip(0..).collect();
        order.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let weights = self.by_rank(n);
        let mut rest = weights.as_slice();
        for ties in order.chunk_by(|(a, _), (b, _)| a == b) {
            let (now, later) = rest.split_at(ties.len().min(rest.len()));
            let mean = now.iter().sum::<f64>() / now.len().max(1) as f64;
            for &(_, i) in ties {
                losses.get_mut(i).into_iter().for_each(|x| *x = mean);
            }
            rest = later;
        }
    }

    /// The weights of the ranks, the smallest loss first.
    fn by_rank(self, n: usize) -> Vec<f64> {
        let count = n as f64;
        if self == Self::CenteredRank {
            let last = (count - 1.0).max(1.0);
            return (0..n)
                .map(|rank| if n == 1 { 0.0 } else { rank as f64 / last - 0.5 })
                .collect();
        }
        let raw: Vec<f64> =
            (1..=n).map(|r| ((count / 2.0 + 1.0).ln() - (r as f64).ln()).max(0.0)).collect();
        let total: f64 = raw.iter().sum();
        raw.iter().map(|u| -(u / total - 1.0 / count)).collect()
    }
}
