//! Convolutions as matrix products: patches of images as rows.

use crate::error::{Error, Result};
use crate::numeric::Element;
use ndarray::{Array2, ArrayRef4, ArrayView4, ArrayViewMut2};

/// The geometry of a two-dimensional convolution, as `torch.nn.Conv2d` names it; height first.
///
/// ```text
/// output = ⌊(size + 2·padding − dilation·(kernel − 1) − 1)/stride⌋ + 1
/// ```
/// One dimension is a height of 1. Grouped convolutions are not of this kind.
///
/// # Examples
/// ```
/// use eigenstep::curvature::Conv2d;
///
/// let conv = Conv2d { stride: [2, 2], padding: [1, 1], ..Conv2d::new([3, 3]) };
/// assert_eq!(conv.output([5, 6]), Some([3, 3]));
/// assert_eq!(Conv2d::new([3, 3]).output([2, 9]), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// Height and width of the kernel, at least 1.
    pub kernel: [usize; 2],
    /// Steps between patches, at least 1.
    pub stride: [usize; 2],
    /// Zeros around the image.
    pub padding: [usize; 2],
    /// Distance of the elements of a patch, at least 1.
    pub dilation: [usize; 2],
}

impl Conv2d {
    /// A kernel of this height and width, with stride 1, no padding and dilation 1.
    pub const fn new(kernel: [usize; 2]) -> Self {
        Self { kernel, stride: [1, 1], padding: [0, 0], dilation: [1, 1] }
    }

    /// Height and width of what comes out of an image of this height and width; `None` if no patch fits.
    pub fn output(&self, size: [usize; 2]) -> Option<[usize; 2]> {
        let along = |axis: usize| {
            let part = |pair: &[usize; 2]| pair.get(axis).copied();
            let reach = part(&self.dilation)?.checked_mul(part(&self.kernel)?.checked_sub(1)?)?;
            let padded = part(&size)?.checked_add(part(&self.padding)?.checked_mul(2)?)?;
            Some(padded.checked_sub(reach.checked_add(1)?)? / part(&self.stride)? + 1)
        };
        let positive = |pair: &[usize; 2]| pair.iter().all(|&x| x > 0);
        let valid = positive(&self.kernel) && positive(&self.stride) && positive(&self.dilation);
        valid.then(|| Some([along(0)?, along(1)?])).flatten()
    }

    /// The same, or an error about these images.
    pub(super) fn checked_output(&self, size: [usize; 2]) -> Result<[usize; 2]> {
        self.output(size).ok_or_else(|| {
            let expected = "sizes of at least 1, and a patch no larger than the padded image";
            let [height, width] = size;
            let found = format!("{self:?} for {height} x {width}");
            Error::invalid("Conv2d", "kernel", expected, found)
        })
    }

    /// Elements of a patch of one channel.
    pub(super) fn area(&self) -> usize {
        let [height, width] = self.kernel;
        height.saturating_mul(width)
    }
}

/// The patches that a convolution multiplies by its weight, one per row.
///
/// `x`: examples × channels × height × width. Returns rows × (channels·kernel height·kernel width). Rows
/// are ordered by example, then output row, then output column; columns by channel, then kernel row, then
/// kernel column, as in a weight of shape (out, channels, kernel height, kernel width) that is made flat.
/// So the convolution is `unfold(x)·Wᵀ`, and the gradient of W is `Yᵀ·unfold(x)` for the rows Y of output
/// gradients, [`image_rows`].
///
/// # Errors
/// [`Error::InvalidHyperparameter`] if a size of the geometry is 0, or no patch fits into an image.
///
/// # Examples
/// ```
/// use eigenstep::curvature::{Conv2d, unfold};
/// use ndarray::{Array4, array};
///
/// let image = Array4::from_shape_vec((1, 1, 2, 3), vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// let patches = unfold(&image, &Conv2d::new([2, 2]))?;
/// assert_eq!(patches, array![[1.0, 2.0, 4.0, 5.0], [2.0, 3.0, 5.0, 6.0]]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn unfold<T: Element>(x: &ArrayRef4<T>, conv: &Conv2d) -> Result<Array2<T>> {
    let (examples, channels, height, width) = x.dim();
    let output = conv.checked_output([height, width])?;
    let [rows, columns] = output;
    let mut patches = Array2::default((examples * rows * columns, channels * conv.area()));
    unfold_into(x.view(), conv, output, &mut patches.view_mut(), |x| x);
    Ok(patches)
}

/// Writes patches; where a patch lies in the padding, `out` keeps what it holds.
pub(super) fn unfold_into<T: Element, R>(
    x: ArrayView4<'_, T>,
    conv: &Conv2d,
    [rows, columns]: [usize; 2],
    out: &mut ArrayViewMut2<'_, R>,
    convert: impl Fn(T) -> R,
) {
    let (_, channels, height, width) = x.dim();
    let contiguous = x.as_standard_layout();
    let planes = contiguous.as_slice().unwrap_or_default().chunks_exact((height * width).max(1));
    let [_, kernel_columns] = conv.kernel;
    let within = |at: usize, element: usize, axis: usize| {
        let part = |pair: &[usize; 2]| pair.get(axis).copied().unwrap_or(0);
        (at * part(&conv.stride) + element * part(&conv.dilation)).checked_sub(part(&conv.padding))
    };
    for (index, plane) in planes.enumerate() {
        let (example, channel) = (index / channels.max(1), index % channels.max(1));
        for element in 0..conv.area() {
            let (i, j) = (element / kernel_columns.max(1), element % kernel_columns.max(1));
            let column = channel * conv.area() + element;
            for row in 0..rows {
                let Some(y) = within(row, i, 0).filter(|&y| y < height) else { continue };
                let line = plane.get(y * width..(y + 1) * width).unwrap_or_default();
                for position in 0..columns {
                    let x = within(position, j, 1).and_then(|x| line.get(x));
                    let at = (example * rows + row) * columns + position;
                    if let (Some(&x), Some(out)) = (x, out.get_mut((at, column))) {
                        *out = convert(x);
                    }
                }
            }
        }
    }
}

/// Images as rows of channels: examples × channels × height × width becomes rows × channels.
///
/// Rows are ordered by example, then row, then column of the image, as those of [`unfold`].
///
/// # Examples
/// ```
/// use eigenstep::curvature::image_rows;
/// use ndarray::{Array4, array};
///
/// let images = Array4::from_shape_vec((1, 2, 1, 2), vec![1.0, 2.0, 3.0, 4.0])?;
/// assert_eq!(image_rows(&images), array![[1.0, 3.0], [2.0, 4.0]]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn image_rows<T: Element>(images: &ArrayRef4<T>) -> Array2<T> {
    let (examples, channels, height, width) = images.dim();
    let by_channel = images.view().permuted_axes([0, 2, 3, 1]);
    let values: Vec<T> = by_channel.iter().copied().collect();
    // as many elements as the images have
    Array2::from_shape_vec((examples * height * width, channels), values).unwrap_or_default()
}
