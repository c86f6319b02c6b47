use crate::cases;
use eigenstep::linalg::{
    blocks, matrix_blocks, matrix_shape, merge_leading_dims, merge_small_dims,
};
use ndarray::ArrayD;
use proptest::prelude::*;

proptest! {
    #![proptest_config(cases::cases(128))]

    #[test]
    fn merging_keeps_elements_and_bounds(
        shape in prop::collection::vec(1usize..7, 0..6), threshold in 1usize..60,
        target in 1usize..4,
    ) {
        let numel: usize = shape.iter().product();
        let without_ones = shape.iter().filter(|&&size| size != 1).count();
        let largest = shape.iter().copied().max().unwrap_or(1);
        for (merged, target) in [
            (merge_small_dims(&shape, threshold, Some(target)), target),
            (merge_leading_dims(&shape, threshold), 1),
        ] {
            prop_assert_eq!(merged.iter().product::<usize>(), numel);
            prop_assert!(merged.len() >= target.min(without_ones).max(1));
            prop_assert!(merged.iter().all(|&size| size <= threshold.max(largest)));
            prop_assert!(merged == [1] || merged.iter().all(|&size| size != 1));
        }
        prop_assert_eq!(merge_small_dims(&shape, threshold, None), shape.clone());
        match matrix_shape(&shape) {
            Some((rows, cols)) => {
                prop_assert!(without_ones > 1 && rows * cols == numel);
                prop_assert_eq!(Some(&rows), shape.iter().find(|&&size| size != 1));
            }
            None => prop_assert!(without_ones <= 1),
        }
    }

    #[test]
    fn blocks_cover_every_element_once(
        shape in prop::collection::vec(0usize..7, 0..4), max_dim in 0usize..9,
    ) {
        let mut hits = ArrayD::<u8>::zeros(shape.clone());
        let cut = blocks(&shape, max_dim);
        for block in &cut {
            prop_assert!(block.iter().all(|run| !run.is_empty() && run.len() <= max_dim.max(1)));
            let slice = |axis: ndarray::AxisDescription| block[axis.axis.index()].clone().into();
            hits.slice_each_axis_mut(slice).mapv_inplace(|x| x + 1);
        }
        prop_assert!(hits.iter().all(|&x| x == 1));
        // row-major: starts ascend lexicographically
        let starts = |block: &Vec<std::ops::Range<usize>>| -> Vec<usize> {
            block.iter().map(|run| run.start).collect()
        };
        prop_assert!(cut.windows(2).all(|pair| starts(&pair[0]) < starts(&pair[1])));
        if let [rows, cols] = shape[..] {
            let pairs = matrix_blocks((rows, cols), max_dim);
            let same: Vec<_> = pairs.into_iter().map(|(rows, cols)| vec![rows, cols]).collect();
            prop_assert_eq!(same, cut);
        }
    }
}

#[test]
fn known_shapes() {
    assert_eq!(merge_small_dims(&[4, 3, 2, 2], 1024, Some(2)), [4, 12]);
    assert_eq!(merge_small_dims(&[4, 3, 2, 2], 8, Some(1)), [4, 3, 4]);
    assert_eq!(merge_small_dims(&[4, 3], 1024, Some(1)), [12]);
    assert_eq!(merge_small_dims(&[1, 1], 1024, Some(1)), [1]);
    assert_eq!(merge_small_dims(&[], 1024, Some(1)), [1]);
    assert_eq!(merge_small_dims(&[3, 1], 1024, None), [3, 1]);
    assert_eq!(merge_leading_dims(&[1, 2, 768, 1, 2048], 1024), [2, 768, 2048]);
    assert_eq!(merge_leading_dims(&[1, 1, 1], 128), [1]);
    assert_eq!(matrix_shape(&[3, 1, 4]), Some((3, 4)));
    assert_eq!(matrix_shape(&[4, 3, 2, 2]), Some((4, 12)));
    assert_eq!(matrix_shape(&[]), None);
    assert_eq!(blocks(&[], 3), [Vec::new()]);
    assert!(blocks(&[3, 0], 2).is_empty());
    // no limit at all
    assert_eq!(matrix_blocks((5, 6), usize::MAX), [(0..5, 0..6)]);
}
