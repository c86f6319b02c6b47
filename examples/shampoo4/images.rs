//! The images: files in the format of MNIST, or the digits that come with the examples.

use crate::common::Problem;
use crate::common::data::{CLASSES, Set, load as load_digits, split};
use flate2::read::GzDecoder;
use ndarray::Array2;
use std::io::Read;
use std::path::Path;

/// One image of the training files in so many is kept to choose learning rates.
const VALIDATION_ONE_IN: usize = 8;
/// Widths between input and output.
const HIDDEN: [usize; 2] = [256, 256];

/// Images for three purposes, and the network for them.
pub struct Images {
    /// To learn from.
    pub train: Set,
    /// To choose the learning rate by.
    pub validation: Set,
    /// To be judged by.
    pub test: Set,
    /// Widths of the network, input and output included.
    pub widths: [usize; 4],
}

/// Reads the four files of `folder`, or the digits.
pub fn load(folder: Option<&Path>) -> Result<Images, Problem> {
    let (all, test) = match folder {
        None => {
            let digits = load_digits(None)?;
            (digits.train, digits.test)
        }
        Some(folder) => (read(folder, "train")?, read(folder, "t10k")?),
    };
    let [first, second] = HIDDEN;
    let (train, validation) = split(&all, (1, VALIDATION_ONE_IN));
    let inputs = all.images.ncols();
    if train.len() == 0 || test.len() == 0 || test.images.ncols() != inputs {
        let expected = "images of one size to learn from and to be tested by";
        return Err(Problem(format!("--data: expected {expected}")));
    }
    Ok(Images { train, validation, test, widths: [inputs, first, second, CLASSES] })
}

/// The images and labels of one part.
fn read(folder: &Path, part: &str) -> Result<Set, Problem> {
    let (shape, pixels) = idx(folder, &format!("{part}-images-idx3-ubyte"), 3)?;
    let (_, labels) = idx(folder, &format!("{part}-labels-idx1-ubyte"), 1)?;
    let wrong = |what: String| Problem(format!("--data: {part}: {what}"));
    let count = shape.first().copied().unwrap_or(0);
    if labels.len() != count || labels.iter().any(|&label| usize::from(label) >= CLASSES) {
        return Err(wrong(format!("expected {count} labels from 0 to 9")));
    }
    let pixels: Vec<f32> = pixels.into_iter().map(|pixel| f32::from(pixel) / 255.0).collect();
    let size = shape.iter().skip(1).product();
    let images = Array2::from_shape_vec((count, size), pixels);
    Ok(Set { images: images.map_err(|error| wrong(error.to_string()))?, labels })
}

/// An array of bytes: two zeros, the code of bytes, the number of dimensions; dimensions in four
/// bytes each, the highest first; the numbers.
fn idx(folder: &Path, name: &str, dimensions: usize) -> Result<(Vec<usize>, Vec<u8>), Problem> {
    let bytes = unpacked(folder, name)?;
    let wrong = |what: &str| Problem(format!("--data: {name}: expected {what}"));
    let mut words = bytes.chunks_exact(4);
    if words.next() != Some(&[0, 0, 8, dimensions as u8]) {
        return Err(wrong("an idx file of bytes"));
    }
    let word = |word: &[u8]| word.iter().fold(0, |value, &byte| value << 8 | usize::from(byte));
    let shape: Vec<usize> = words.take(dimensions).map(word).collect();
    let numbers = bytes.get(4 + 4 * dimensions..).unwrap_or_default();
    let count = shape.iter().try_fold(1_usize, |count, &n| count.checked_mul(n));
    if shape.len() != dimensions || count != Some(numbers.len()) {
        return Err(wrong("as many numbers as its head says"));
    }
    Ok((shape, numbers.to_vec()))
}

fn unpacked(folder: &Path, name: &str) -> Result<Vec<u8>, Problem> {
    let packed = std::fs::read(folder.join(format!("{name}.gz")));
    let mut bytes = Vec::new();
    match packed {
        Ok(packed) => GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).map(|_| bytes),
        Err(_) => std::fs::read(folder.join(name)),
    }
    .map_err(|error| {
        let folder = folder.display();
        Problem(format!(
            "--data: expected a readable file {name} or {name}.gz in {folder}: {error}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::load;

    #[test]
    fn digits_are_in_one_of_three_sets() -> Result<(), crate::common::Problem> {
        let images = load(None)?;
        assert_eq!(images.train.len() + images.validation.len() + images.test.len(), 1797);
        assert_eq!(images.widths, [64, 256, 256, 10]);
        Ok(())
    }

    #[test]
    fn folders_without_files_are_named() {
        let problem = load(Some("nowhere".as_ref())).err().map(|problem| problem.0);
        assert!(problem.is_some_and(|problem| problem.contains("train-images-idx3-ubyte")));
    }
}
