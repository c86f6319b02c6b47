//! The number of elements that a density stands for.

/// `density·numel`, rounded up or down. `density` counts as the shortest decimal fraction that parses
/// to it.
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
    // more digits than 128 bits hold: rounding does not matter then
    exact.map_or_else(|| rounded() as usize, |count| count as usize).min(numel)
}

/// Number of elements that are kept of a block of `len`.
pub(super) fn block_count(density: f64, len: usize) -> usize {
    share(density, len, true)
}
