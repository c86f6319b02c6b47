//! How many elements a density stands for.

/// `density·numel`, rounded up or down, of the shortest decimal fraction that reads as `density`.
pub(super) fn share(density: f64, numel: usize, up: bool) -> usize {
    let text = density.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits: Option<u128> = format!("{whole}{fraction}").parse().ok();
    let unit = 10u128.checked_pow(fraction.len() as u32);
    let product = digits.and_then(|digits| digits.checked_mul(numel as u128));
    let exact = product.zip(unit).map(|(product, unit)| match up {
        true => product.div_ceil(unit),
        false => product / unit,
    });
    let rounded = || if up { (density * numel as f64).ceil() } else { density * numel as f64 };
    // more digits than 128 bits hold: far from any decision
    exact.map_or_else(|| rounded() as usize, |count| count as usize).min(numel)
}

/// Entries that are kept of a block.
pub(super) fn block_count(density: f64, len: usize) -> usize {
    share(density, len, true)
}
