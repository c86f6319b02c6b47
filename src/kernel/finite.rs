//! The non-finite check: one read, with the widest vectors of the processor.

use super::isa::{Isa, Kernel};
use super::prefetch::ahead_of;
use crate::numeric::{Element, Real};

/// Places that are read from side by side: the processor fetches several streams ahead at once, and
/// one alone does not keep its memory busy.
const STREAMS: usize = 4;

const LANES: usize = 32;

/// Largest magnitude of `values`; NaN if any is NaN.
pub fn max_magnitude<T: Element>(isa: Isa, values: &[T]) -> T::Compute {
    match T::as_compute(values) {
        Some(values) => isa.run(MaxMagnitude(values)),
        None => isa.run(MaxMagnitudeWidened(values)),
    }
}

struct MaxMagnitude<'a, R>(&'a [R]);

impl<R: Real> Kernel for MaxMagnitude<'_, R> {
    type Output = R;

    #[inline(always)]
    fn run(self) -> R {
        // magnitudes order like their bits, NaN above infinity: integer maxima need no special case
        let mut lanes = [[R::Bits::default(); LANES]; STREAMS];
        let (blocks, rest) = self.0.as_chunks::<LANES>();
        let len = blocks.len() / STREAMS;
        // equal lengths, stated once, so that the loop carries no bounds checks
        let streams: [_; STREAMS] = std::array::from_fn(|k| &blocks[k * len..][..len]);
        for i in 0..len {
            for (lanes, stream) in lanes.iter_mut().zip(streams) {
                ahead_of(&stream[i]);
                raise::<R>(lanes, &stream[i]);
            }
        }
        let [mut largest, others @ ..] = lanes;
        blocks[STREAMS * len..].iter().for_each(|block| raise::<R>(&mut largest, block));
        for (lane, x) in largest.iter_mut().zip(rest) {
            *lane = x.magnitude_bits().max(*lane);
        }
        let all = others.as_flattened().iter().chain(&largest);
        R::from_magnitude_bits(all.copied().max().unwrap_or_default())
    }
}

/// Raises every lane to the magnitude of its neighbour.
#[inline(always)]
fn raise<R: Real>(lanes: &mut [R::Bits; LANES], block: &[R; LANES]) {
    for k in 0..LANES {
        let bits = block[k].magnitude_bits();
        lanes[k] = if bits > lanes[k] { bits } else { lanes[k] };
    }
}

struct MaxMagnitudeWidened<'a, T>(&'a [T]);

impl<T: Element> Kernel for MaxMagnitudeWidened<'_, T> {
    type Output = T::Compute;

    #[inline(always)]
    fn run(self) -> T::Compute {
        let largest = self.0.iter().map(|x| x.load().magnitude_bits()).max();
        T::Compute::from_magnitude_bits(largest.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_not_finite_at_any_place() {
        for isa in Isa::available() {
            for len in [0usize, 1, 31, 32, 33, 100] {
                let mut values: Vec<f32> = (0..len).map(|i| -(i as f32)).collect();
                let largest = len.saturating_sub(1) as f32;
                assert_eq!(max_magnitude(isa, &values), largest);
                for i in 0..len {
                    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
                        let good = std::mem::replace(&mut values[i], bad);
                        assert!(!max_magnitude(isa, &values).is_finite());
                        values[i] = good;
                    }
                }
            }
        }
    }
}
