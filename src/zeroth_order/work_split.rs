//! Which worker does what.

/// Worker of every item: contiguous runs of items whose loads are about equal.
///
/// ```text
/// worker(i) = min(W − 1, ⌊W·(weight of all items before i)/(weight of all)⌋)
/// ```
pub fn work_split(weights: &[f64], workers: usize) -> Vec<usize> {
    let total: f64 = weights.iter().sum();
    let last = workers.saturating_sub(1);
    let mut before = 0.0;
    let place = |weight: &f64| {
        let worker = if total > 0.0 { (before * workers as f64 / total) as usize } else { 0 };
        before += weight;
        worker.min(last)
    };
    weights.iter().map(place).collect()
}
