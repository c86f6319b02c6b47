//! Arrays whose elements do not lie in memory as they count, read and written row by row.

use ndarray::{ArrayViewD, ArrayViewMutD, Axis, Slice};

/// Rows of at most so many elements are read from the beginning of one to the end of another; longer ones
/// are divided.
const NARROW: usize = 1024;

/// Writes `of` of the elements `offset .. offset + out.len()`, counted row-major.
pub(super) fn read<T: Copy, U>(
    view: &ArrayViewD<'_, T>,
    offset: usize,
    out: &mut [U],
    of: impl Fn(T) -> U + Copy,
) {
    let width: usize = view.shape().iter().skip(1).product();
    if out.is_empty() || width == 0 {
        return;
    }
    let (first, mut skip, end) = (offset / width, offset % width, offset + out.len());
    if view.ndim() <= 2 || width <= NARROW {
        let part = view.slice_axis(Axis(0), Slice::from(first..end.div_ceil(width)));
        return read_rows(&part, skip, out, of);
    }
    let mut rest = out;
    for part in view.axis_iter(Axis(0)).skip(first) {
        let (out, later) = rest.split_at_mut(rest.len().min(width - skip));
        read(&part, skip, out, of);
        (rest, skip) = (later, 0);
        if rest.is_empty() {
            return;
        }
    }
}

/// Writes `of` of the elements from the one number `skip` on.
fn read_rows<T: Copy, U>(
    view: &ArrayViewD<'_, T>,
    mut skip: usize,
    out: &mut [U],
    of: impl Fn(T) -> U,
) {
    let mut rest = out;
    // rows of one dimension, along which the elements are one stride apart
    for row in view.rows() {
        if skip >= row.len() {
            skip -= row.len();
            continue;
        }
        let row = row.slice_axis(Axis(0), Slice::from(skip..));
        let (out, later) = rest.split_at_mut(rest.len().min(row.len()));
        out.iter_mut().zip(row).for_each(|(to, from)| *to = of(*from));
        (rest, skip) = (later, 0);
        if rest.is_empty() {
            return;
        }
    }
}

/// Writes `of` of `from` into all elements, counted row-major.
pub(super) fn write<T, U: Copy>(view: &mut ArrayViewMutD<'_, T>, from: &[U], of: impl Fn(U) -> T) {
    let mut rest = from;
    for row in view.rows_mut() {
        let (from, later) = rest.split_at(rest.len().min(row.len()));
        row.into_iter().zip(from).for_each(|(to, from)| *to = of(*from));
        rest = later;
    }
}

#[cfg(test)]
mod tests {
    use super::{read, write};
    use ndarray::{Array, Array3, Axis, IxDyn};

    #[test]
    fn any_range_of_any_view_is_read_as_it_counts() {
        for shape in [vec![3, 4, 5], vec![2, 3, 1030], vec![7, 2100], vec![1, 1, 9], vec![600]] {
            let numel = shape.iter().product();
            let reversed: Vec<usize> = shape.iter().rev().copied().collect();
            let mut array = Array::<usize, _>::zeros(IxDyn(&reversed));
            (0..).zip(&mut array).for_each(|(i, x)| *x = i);
            let view = array.view_mut();
            let mut view = view.reversed_axes();
            view.invert_axis(Axis(0));
            let expected: Vec<usize> = view.iter().copied().collect();
            for offset in [0, 1, numel / 3, numel - 1] {
                for end in [offset, offset + 1, (offset + numel) / 2, numel] {
                    let mut out = vec![usize::MAX; end - offset];
                    read(&view.view(), offset, &mut out, |x| x);
                    assert_eq!(expected.get(offset..end), Some(&*out), "{shape:?}");
                }
            }
            let new: Vec<usize> = (numel..2 * numel).collect();
            write(&mut view, &new, |x| x);
            assert!(view.iter().eq(&new));
        }
        let empty = Array3::<u8>::zeros((2, 0, 3)).into_dyn();
        read(&empty.view(), 0, &mut [0u8; 0], |x| x);
    }
}
