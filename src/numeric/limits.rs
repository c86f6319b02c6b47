//! What can be counted: elements, steps, iterations.

/// 2^53: the largest count that an `f64` holds exactly. No counter goes beyond it.
pub(crate) const MOST_COUNT: u64 = 1 << 53;

/// Most iterations of a loop inside of a step: those that converge need a few dozen.
pub(crate) const MOST_ITERATIONS: u64 = 10_000;

/// Most gradients in a window: the matrix of their products is 512 MiB then.
pub(crate) const MOST_GRADIENTS: u64 = 1 << 13;

/// The product of sizes; `None` if so many elements of 8 bytes cannot be counted, not even without
/// the sizes that are 0: then the product of any of the sizes can be.
pub(crate) fn numel(shape: &[usize]) -> Option<usize> {
    let bytes = shape.iter().try_fold(8usize, |bytes, &dim| bytes.checked_mul(dim.max(1)));
    let fits = bytes.is_some_and(|bytes| isize::try_from(bytes).is_ok());
    let sum = shape.iter().try_fold(0usize, |sum, &dim| sum.checked_add(dim));
    (fits && sum.is_some()).then(|| shape.iter().product())
}

#[cfg(test)]
mod tests {
    use super::numel;

    #[test]
    fn products_that_cannot_be_counted_are_none() {
        assert_eq!(numel(&[]), Some(1));
        assert_eq!(numel(&[2, 3, 0]), Some(0));
        assert_eq!(numel(&[1 << 59]), Some(1 << 59));
        for shape in [&[1 << 60][..], &[1 << 60, 0], &[0, 1 << 33, 1 << 33], &[usize::MAX, 0, 2]] {
            assert_eq!(numel(shape), None, "{shape:?}");
        }
    }
}
