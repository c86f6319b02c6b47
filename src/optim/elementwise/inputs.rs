//! Inputs of a step besides parameter and gradient, as a rule reads them.

use crate::numeric::random::philox4x32;
use crate::numeric::{Element, Real};
use crate::optim::method::{GradSlice, Stage};

/// Keeps the random numbers of inputs apart from those of rounding, which have the same keys.
const PURPOSE: u32 = 0x6e6f_6973;

/// Keeps those of moves between the two points of a parameter apart from those of steps.
const MOVES: u32 = 0x6d6f_7665;

/// Normal random numbers of one tensor at one step.
pub(super) struct NoiseStream {
    pub seed: u64,
    pub t: u64,
    pub key: u64,
}

impl NoiseStream {
    /// Writes the numbers of the elements `offset ..`: each depends on its index alone.
    pub fn fill<R: Real>(&self, offset: usize, out: &mut [R]) {
        let mut out = out.iter_mut();
        let mut quad = offset / 4;
        let mut skip = offset % 4;
        while out.len() > 0 {
            for number in self.quad(quad as u64).into_iter().skip(skip) {
                if let Some(x) = out.next() {
                    *x = R::of(number);
                }
            }
            skip = 0;
            quad += 1;
        }
    }

    /// Four numbers, by the transform of Box and Muller.
    fn quad(&self, index: u64) -> [f64; 4] {
        let key = (self.key as u32) ^ (self.key >> 32) as u32;
        let counter = counter(index, self.t, key);
        let stream = [self.seed as u32, (self.seed >> 32) as u32 ^ PURPOSE];
        let bits = philox4x32(counter, stream);
        // in (0, 1): the logarithm of zero is never taken
        let unit = bits.map(|bits| (f64::from(bits) + 0.5) / 4_294_967_296.0);
        let pair = |a: f64, b: f64| {
            let (radius, angle) = ((-2.0 * a.ln()).sqrt(), std::f64::consts::TAU * b);
            (radius * angle.cos(), radius * angle.sin())
        };
        let [a, b, c, d] = unit;
        let ((w, x), (y, z)) = (pair(a, b), pair(c, d));
        [w, x, y, z]
    }
}

/// Random numbers that parameters are rounded with: of one tensor, in one step or at one move between its two
/// points.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundingStream {
    pub seed: u64,
    pub key: u64,
    pub t: u64,
    pub stage: Stage,
}

impl RoundingStream {
    /// The bits of four elements.
    pub fn quad(&self, index: u64) -> [u32; 4] {
        let key = (self.key as u32) ^ (self.key >> 32) as u32;
        let [low, high] = [self.seed as u32, (self.seed >> 32) as u32];
        let stream = match self.stage {
            Stage::Switch(_, number) => [low ^ MOVES, high ^ number as u32],
            _ => [low, high],
        };
        philox4x32(counter(index, self.t, key), stream)
    }
}

/// The counter of four elements of step `t`: no two are equal while there are fewer than `2^50` elements and
/// `2^48` steps.
fn counter(index: u64, t: u64, key: u32) -> [u32; 4] {
    [index as u32, (index >> 32) as u32 ^ ((t >> 32) as u32) << 16, t as u32, key]
}

/// The magnitudes of a curvature; for four dimensions, their means over the last two.
pub(super) fn load_magnitude<T: Element>(
    curvature: &GradSlice<'_, T>,
    shape: &[usize],
    offset: usize,
    out: &mut [T::Compute],
) {
    let size = match shape {
        [_, _, height, width] => height * width,
        _ => 1,
    };
    if size <= 1 {
        curvature.load(offset, out);
        out.iter_mut().for_each(|x| *x = if *x < T::Compute::of(0.0) { -*x } else { *x });
        return;
    }
    let (mut first, mut rest) = (offset, out);
    let mut part = [T::Compute::of(0.0); 64];
    while !rest.is_empty() {
        let kernel = first / size;
        let mut sum = 0.0;
        for start in (0..size).step_by(part.len()) {
            let len = part.len().min(size - start);
            let part = part.get_mut(..len).unwrap_or_default();
            curvature.load(kernel * size + start, part);
            sum += part.iter().map(|x| x.widen().abs()).sum::<f64>();
        }
        let len = ((kernel + 1) * size - first).min(rest.len());
        let (own, others) = rest.split_at_mut(len);
        own.fill(T::Compute::of(sum / size as f64));
        (first, rest) = (first + len, others);
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)] // of its own making
mod tests {
    use super::*;

    #[test]
    fn noise_depends_on_the_index_alone() {
        let stream = NoiseStream { seed: 7, t: 3, key: 99 };
        let mut all = [0.0f64; 103];
        stream.fill(0, &mut all);
        for (start, len) in [(0, 1), (1, 2), (3, 50), (50, 53), (101, 2)] {
            let mut part = vec![0.0f64; len];
            stream.fill(start, &mut part);
            assert_eq!(part, all[start..start + len]);
        }
        let other = NoiseStream { t: 4, ..stream };
        let mut next = [0.0f64; 103];
        other.fill(0, &mut next);
        assert!(all.iter().zip(next).all(|(a, b)| *a != b));
    }

    #[test]
    fn noise_is_normal() {
        let mut x = vec![0.0f64; 100_000];
        NoiseStream { seed: 1, t: 1, key: 1 }.fill(0, &mut x);
        let moment = |k: i32| x.iter().map(|x| x.powi(k)).sum::<f64>() / x.len() as f64;
        assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0).abs() < 0.02);
        assert!(moment(3).abs() < 0.05 && (moment(4) - 3.0).abs() < 0.1);
    }
}
