//! The images: reading, checking, and the split into training and test set.

use super::Problem;
use super::random::Random;
use ndarray::{Array2, Axis};
use std::path::Path;

/// Pixels of an image, 8 × 8.
pub const PIXELS: usize = 64;
/// Number of classes.
pub const CLASSES: usize = 10;
/// The largest value of a pixel.
const INK: u8 = 16;
/// One image in five is kept for the test.
const TEST_SHARE: Share = (1, 5);

/// A share as (so many, of so many).
pub type Share = (usize, usize);

/// Images and what they show.
pub struct Set {
    /// One image a row, pixels from 0 to 1.
    pub images: Array2<f32>,
    /// The digit of every image.
    pub labels: Vec<u8>,
}

impl Set {
    /// The images number `indices`.
    pub fn select(&self, indices: &[usize]) -> Self {
        Self {
            images: self.images.select(Axis(0), indices),
            labels: indices.iter().filter_map(|&i| self.labels.get(i).copied()).collect(),
        }
    }

    /// The images at half the height and width: means of 2 × 2 pixels.
    pub fn halved(&self) -> Self {
        let (side, half) = (8, 4);
        let images = Array2::from_shape_fn((self.len(), half * half), |(image, pixel)| {
            let (row, column) = (2 * (pixel / half), 2 * (pixel % half));
            let corners = [(0, 0), (0, 1), (1, 0), (1, 1)];
            let value = |(i, j)| self.images.get((image, (row + i) * side + column + j));
            corners.into_iter().filter_map(value).sum::<f32>() / 4.0
        });
        Self { images, labels: self.labels.clone() }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }
}

/// What to learn from, and what to be judged by.
pub struct Digits {
    /// Most images of every digit.
    pub train: Set,
    /// The others.
    pub test: Set,
}

/// Reads `file`, or the images that come with the example.
pub fn load(file: Option<&Path>) -> Result<Digits, Problem> {
    load_split(file, TEST_SHARE)
}

/// As [`load`], with another share of the images kept for the test.
pub fn load_split(file: Option<&Path>, share: Share) -> Result<Digits, Problem> {
    let all = match file {
        None => parse(include_str!("../data/digits.csv"), "digits.csv")?,
        Some(file) => {
            let name = file.display().to_string();
            let text = std::fs::read_to_string(file).map_err(|error| {
                Problem(format!("--data: expected a readable CSV file, {name}: {error}"))
            })?;
            parse(&text, &name)?
        }
    };
    let (train, test) = split(&all, share);
    if train.len() == 0 {
        let found = all.len();
        return Err(Problem(format!(
            "--data: expected at least two images of a digit among {found}"
        )));
    }
    Ok(Digits { train, test })
}

fn parse(text: &str, name: &str) -> Result<Set, Problem> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |found: String| {
            let expected = "64 pixels from 0 to 16 and a label from 0 to 9, separated by commas";
            Problem(format!("{name}, line {number}: expected {expected}; found {found}"))
        };
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let Some((label, image)) = fields.split_last().filter(|(_, image)| image.len() == PIXELS)
        else {
            return Err(wrong(format!("{} values", fields.len())));
        };
        let number = |field: &str, most: u8| match field.parse() {
            Ok(value) if value <= most => Ok(value),
            _ => Err(wrong(format!("`{field}`"))),
        };
        for pixel in image {
            pixels.push(f32::from(number(pixel, INK)?) / f32::from(INK));
        }
        labels.push(number(label, CLASSES as u8 - 1)?);
    }
    let images = Array2::from_shape_vec((labels.len(), PIXELS), pixels)
        .map_err(|error| Problem(format!("{name}: {error}")))?;
    Ok(Set { images, labels })
}

/// Takes a share of every class away: the others, and those taken. The choice depends on no seed.
pub fn split(all: &Set, (some, of): Share) -> (Set, Set) {
    let mut order: Vec<usize> = (0..all.len()).collect();
    Random::new(0, 0).shuffle(&mut order);
    let (mut rest, mut taken) = (Vec::new(), Vec::new());
    for class in 0..CLASSES as u8 {
        let of_class = order.iter().filter(|&&i| all.labels.get(i) == Some(&class));
        for (rank, &i) in of_class.enumerate() {
            if rank * some % of < some { taken.push(i) } else { rest.push(i) }
        }
    }
    (all.select(&rest), all.select(&taken))
}

#[cfg(test)]
mod tests {
    use super::{load, parse};

    #[test]
    fn split_keeps_every_image() -> Result<(), crate::common::Problem> {
        let digits = load(None)?;
        assert_eq!(digits.train.len() + digits.test.len(), 1797);
        for digit in 0..10 {
            let test = digits.test.labels.iter().filter(|&&label| label == digit).count();
            assert!((34..=38).contains(&test), "{digit}: {test}");
        }
        Ok(())
    }

    #[test]
    fn malformed_lines_are_named() {
        let short = "# images\n1,2,3\n";
        let ink = format!("{}17,3\n", "0,".repeat(63));
        let label = format!("{}ten\n", "0,".repeat(64));
        for (text, found) in [(short, "line 2"), (&ink, "`17`"), (&label, "`ten`")] {
            let problem = parse(text, "file").err().map(|problem| problem.0).unwrap_or_default();
            assert!(problem.contains(found) && problem.contains("expected 64 pixels"), "{problem}");
        }
    }
}
