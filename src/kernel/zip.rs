//! Loops over several slices at once, for a function of one element.

use super::isa::{Isa, Kernel};
use super::prefetch::ahead_of;
use crate::numeric::Real;
use crate::numeric::reduce::LaneSum;
use std::array::from_fn;

/// Elements of a round of the loop: a few cache lines.
const BLOCK: usize = 64;

/// Maxima that are taken side by side.
const LANES: usize = 32;

/// `y ← f(xs, y)`, element by element. No slice of `xs` is shorter than `y`.
pub(crate) fn map<R: Real, F: Fn([R; N], R) -> R, const N: usize>(
    isa: Isa,
    xs: [&[R]; N],
    y: &mut [R],
    f: &F,
) {
    isa.run(Map { xs, y, f });
}

struct Map<'a, R, F, const N: usize> {
    xs: [&'a [R]; N],
    y: &'a mut [R],
    f: &'a F,
}

impl<R: Real, F: Fn([R; N], R) -> R, const N: usize> Kernel for Map<'_, R, F, N> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { xs, y, f } = self;
        let n = y.len();
        let xs = xs.map(|x| &x[..n]);
        let (blocks, rest) = y.as_chunks_mut::<BLOCK>();
        let whole = blocks.len() * BLOCK;
        for (k, y) in blocks.iter_mut().enumerate() {
            let start = k * BLOCK;
            let xs = xs.map(|x| &x[start..start + BLOCK]);
            ahead_of(&y[..]);
            xs.iter().for_each(|x| ahead_of(x));
            // not in place: what `f` refers to could lie in `y` for all that the compiler knows, which then would
            // read it again for every element
            *y = from_fn(|i| f(xs.map(|x| x[i]), y[i]));
        }
        for (i, y) in rest.iter_mut().enumerate() {
            *y = f(xs.map(|x| x[whole + i]), *y);
        }
    }
}

/// Adds `f(a, b)` for every pair of elements to a sum.
pub(crate) fn sum<R: Real, F: Fn(R, R) -> f64>(
    isa: Isa,
    sum: &mut LaneSum,
    [a, b]: [&[R]; 2],
    f: &F,
) {
    isa.run(Sum { sum, a, b, f });
}

struct Sum<'a, R, F> {
    sum: &'a mut LaneSum,
    a: &'a [R],
    b: &'a [R],
    f: &'a F,
}

impl<R: Real, F: Fn(R, R) -> f64> Kernel for Sum<'_, R, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // a copy stays in registers; what a reference leads to is written after every block
        let mut sum = *self.sum;
        sum.extend_pairs(self.a, self.b, self.f);
        *self.sum = sum;
    }
}

/// The largest `|f(a, b)|` of all pairs of elements; NaN if any is NaN.
pub(crate) fn max<R: Real, F: Fn(R, R) -> R>(isa: Isa, [a, b]: [&[R]; 2], f: &F) -> R {
    isa.run(Max { a, b, f })
}

struct Max<'a, R, F> {
    a: &'a [R],
    b: &'a [R],
    f: &'a F,
}

impl<R: Real, F: Fn(R, R) -> R> Kernel for Max<'_, R, F> {
    type Output = R;

    #[inline(always)]
    fn run(self) -> R {
        // magnitudes order like their bits, NaN above infinity
        let mut lanes = [R::Bits::default(); LANES];
        let raise = |lane: &mut R::Bits, (&a, &b): (&R, &R)| {
            let bits = (self.f)(a, b).magnitude_bits();
            *lane = if bits > *lane { bits } else { *lane };
        };
        let n = self.a.len().min(self.b.len());
        let (a, a_rest) = self.a[..n].as_chunks::<LANES>();
        let (b, b_rest) = self.b[..n].as_chunks::<LANES>();
        for (a, b) in a.iter().zip(b) {
            lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, pair)| raise(lane, pair));
        }
        let rest = a_rest.iter().zip(b_rest);
        lanes.iter_mut().zip(rest).for_each(|(lane, pair)| raise(lane, pair));
        R::from_magnitude_bits(lanes.into_iter().max().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, map, max, sum};
    use crate::kernel::Isa;
    use crate::numeric::reduce::LaneSum;

    #[test]
    fn every_isa_computes_what_a_plain_loop_does() {
        for len in [0, 1, 31, BLOCK - 1, BLOCK, BLOCK + 5, 3 * BLOCK + 1] {
            let a: Vec<f32> = (0..len).map(|i| (i as f32).sin()).collect();
            let b: Vec<f32> = (0..len).map(|i| (3.0 * i as f32).cos()).collect();
            let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| 0.3 * a + b * 2.0 - b).collect();
            let largest = a.iter().zip(&b).fold(0.0, |max: f32, (a, b)| max.max((a - b).abs()));
            let total: Vec<f64> = Isa::available()
                .map(|isa| {
                    let mut y = b.clone();
                    map(isa, [&a, &b], &mut y, &|[a, b], y| 0.3 * a + b * 2.0 - y);
                    assert_eq!(y, expected, "{}", isa.name());
                    assert_eq!(max(isa, [&a, &b], &|a, b| a - b), largest, "{}", isa.name());
                    let mut lanes = LaneSum::default();
                    sum(isa, &mut lanes, [&a, &b], &|a, b| f64::from(a) * f64::from(b));
                    lanes.total()
                })
                .collect();
            let plain: f64 = a.iter().zip(&b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            assert!(total.iter().all(|&t| t == total[0] && (t - plain).abs() < 1e-12));
        }
    }

    #[test]
    fn a_nan_is_the_maximum() {
        for isa in Isa::available() {
            let mut a = vec![f64::INFINITY; 70];
            for at in [0, 40, 69] {
                let good = std::mem::replace(&mut a[at], f64::NAN);
                assert!(max(isa, [&a, &a], &|a, _| a).is_nan());
                a[at] = good;
            }
            assert_eq!(max(isa, [&a, &a], &|a, _| a), f64::INFINITY);
        }
    }
}
