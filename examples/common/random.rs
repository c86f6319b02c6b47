//! Random numbers that are the same everywhere.

use eigenstep::numeric::random::philox4x32;

/// A stream of numbers, chosen by a seed and a purpose.
pub struct Random {
    key: [u32; 2],
    counter: u32,
}

impl Random {
    /// The stream number `purpose` of `seed`; streams have nothing in common.
    pub fn new(seed: u32, purpose: u32) -> Self {
        Self { key: [seed, purpose], counter: 0 }
    }

    fn bits(&mut self) -> u32 {
        self.counter = self.counter.wrapping_add(1);
        let [bits, ..] = philox4x32([self.counter, 0, 0, 0], self.key);
        bits
    }

    /// Uniform between −1 and 1.
    pub fn symmetric(&mut self) -> f32 {
        (f64::from(self.bits()) / f64::from(1u32 << 31) - 1.0) as f32
    }

    /// A random order (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            // the bias of the remainder is of no account for a few thousand items
            let chosen = self.bits() as usize % (last + 1);
            items.swap(last, chosen);
        }
    }
}
