//! How items are distributed over workers.

use crate::error::{Error, Result};

/// Distributes items over workers. Each worker gets consecutive items, and the result depends on the
/// arguments alone.
///
/// ```text
/// worker(i) = min(W − 1, ⌊(Σ_{j<i} weight_j)·W / Σ_j weight_j⌋)
/// ```
/// No worker gets more than `total/W + max weight`. The weight of an item is the cost of its evaluation, in
/// any unit. If all weights are 0, they count as equal.
///
/// | argument | meaning |
/// |---|---|
/// | `weights` | the cost of every item |
/// | `workers` W | the number of workers, at least 1 |
///
/// # Errors
/// [`Error::InvalidHyperparameter`] names `workers` if it is 0.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::work_split;
///
/// assert_eq!(work_split(&[7, 1, 4, 4], 2)?, [0, 0, 1, 1]);
/// assert_eq!(work_split(&[0, 0, 0], 3)?, [0, 1, 2]);
/// assert!(work_split(&[1], 0).is_err());
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// The rule is this crate's; the purpose is that of A. Chen, Y. Zhang, J. Jia, J. Diffenderfer, J. Liu,
/// K. Parasyris, Y. Zhang, Z. Zhang, B. Kailkhura, S. Liu, "DeepZero: Scaling up Zeroth-Order
/// Optimization for Deep Model Training", ICLR 2024.
pub fn work_split(weights: &[u64], workers: usize) -> Result<Vec<usize>> {
    let Some(last) = workers.checked_sub(1) else {
        return Err(Error::invalid("work_split", "workers", "an integer >= 1", workers));
    };
    let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    let equal = total == 0;
    let total = if equal { weights.len() as u128 } else { total };
    let mut before = 0u128;
    let worker = |&weight: &u64| {
        // more than 2⁶⁴ workers times more than 2⁶⁴ units: only then does the product saturate
        let share = before.saturating_mul(workers as u128).checked_div(total).unwrap_or(0);
        before += if equal { 1 } else { u128::from(weight) };
        usize::try_from(share).map_or(last, |share| share.min(last))
    };
    Ok(weights.iter().map(worker).collect())
}
