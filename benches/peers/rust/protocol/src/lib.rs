//! What the peers share: the shapes of a case, numbers to fill them, and the conversation with `run.py`.

use std::io::{BufRead, Write};
use std::time::Duration;

/// The arguments of a peer: case, threads, variant.
pub struct Args {
    pub case: String,
    pub threads: usize,
    pub variant: String,
}

impl Args {
    pub fn read() -> Args {
        let mut args = std::env::args().skip(1);
        let mut next = || args.next().expect("usage: PEER CASE THREADS VARIANT");
        Args {
            case: next(),
            threads: next().parse().expect("THREADS is a number"),
            variant: next(),
        }
    }

    /// The shapes of the case, from `cases.txt`.
    pub fn shapes(&self) -> Vec<Vec<usize>> {
        let mut shapes = Vec::new();
        for line in include_str!("../../../cases.txt").lines().filter(|line| !line.starts_with('#'))
        {
            let mut words = line.split_whitespace();
            if words.next() == Some(&self.case) {
                let number = |word: &str| word.parse().expect("a number");
                let repeated: usize = words.next().map(number).expect("a number of repetitions");
                let block: Vec<Vec<usize>> =
                    words.map(|word| word.split('x').map(number).collect()).collect();
                shapes.extend((0..repeated).flat_map(|_| block.clone()));
            }
        }
        assert!(!shapes.is_empty(), "no case {} in cases.txt", self.case);
        shapes
    }
}

/// Numbers of either sign between 10 % and 100 % of `size`: their squares and averages stay far from denormals.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed)
    }

    pub fn take(&mut self, count: usize, size: f32) -> Vec<f32> {
        (0..count).map(|_| self.next() * size).collect()
    }

    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let fraction = (self.0 >> 40) as f32 / (1 << 24) as f32;
        let magnitude = 0.1 + 0.9 * fraction;
        if self.0 & (1 << 39) == 0 { magnitude } else { -magnitude }
    }
}

/// Answers `step N` with the seconds `steps(N)` reports, until `quit` or the end of the input.
pub fn serve(mut steps: impl FnMut(usize) -> Duration) {
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("readable input");
        match line.split_once(' ') {
            Some(("step", n)) => {
                println!("{:.9}", steps(n.parse().expect("a number")).as_secs_f64())
            }
            _ => break,
        }
        std::io::stdout().flush().expect("writable output");
    }
}
