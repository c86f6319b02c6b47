//! What a step of Shampoo takes in 4 bits, over one in full precision, with its share of the work on
//! factors and roots at the paper's intervals, 100 and 500; and what both take without that work, over
//! the two products of matrices that they cannot do without.
//!
//! `cargo bench --bench shampoo4`; threads by `RAYON_NUM_THREADS`. All take turns, and a ratio is taken
//! within a turn, so that a slow minute of the machine hits all alike.

mod support;

use eigenstep::prelude::*;
use ndarray::Array2;
use ndarray::linalg::general_mat_mul;
use std::hint::black_box;
use std::time::Instant;
use support::matrix;

/// Steps from one update of factors to the next, and from one update of roots to the next.
const INTERVALS: (u64, u64) = (100, 500);
/// An interval that does not end here.
const NEVER: u64 = 1 << 40;
/// Orders of square weights, the number of turns, and of steps without factors and roots in each.
const CASES: [(usize, usize, u32); 3] = [(256, 61, 40), (512, 31, 10), (1024, 11, 5)];

/// An optimizer whose every step does the same.
struct Kind {
    opt: Box<dyn Optimizer<f32>>,
    weight: Array2<f32>,
    gradients: Vec<Array2<f32>>,
}

impl Kind {
    /// Updates factors and roots at these intervals, 1 or [`NEVER`].
    fn new(storage: FactorStorage, n: usize, intervals: (u64, u64)) -> eigenstep::Result<Self> {
        let (update_factors_every, update_roots_every) = intervals;
        let method: Shampoo =
            Shampoo { storage, update_factors_every, update_roots_every, ..Shampoo::default() };
        let mut kind = Self {
            opt: Box::new(method.build()?),
            weight: matrix(n, 0),
            gradients: (1..=4).map(|seed| matrix(n, seed)).collect(),
        };
        kind.seconds(4)?; // state, roots of several gradients, warm memory
        Ok(kind)
    }

    /// Seconds per step.
    fn seconds(&mut self, steps: u32) -> eigenstep::Result<f64> {
        let start = Instant::now();
        for gradient in self.gradients.iter().cycle().take(steps as usize) {
            self.opt.step(black_box(&mut self.weight), black_box(gradient))?;
        }
        Ok(start.elapsed().as_secs_f64() / f64::from(steps))
    }
}

/// The three kinds of steps of a period, in one storage.
struct Period {
    plain: Kind,
    factors: Kind,
    both: Kind,
}

impl Period {
    fn new(storage: FactorStorage, n: usize) -> eigenstep::Result<Self> {
        Ok(Self {
            plain: Kind::new(storage, n, (NEVER, NEVER))?,
            factors: Kind::new(storage, n, (1, NEVER))?,
            both: Kind::new(storage, n, (1, 1))?,
        })
    }

    /// What a step takes, the more frequent kind measured over more of them.
    fn measure(&mut self, plain_steps: u32) -> eigenstep::Result<Times> {
        let (factors_every, roots_every) = INTERVALS;
        let updates = (roots_every / factors_every) as f64;
        let period = roots_every as f64;
        let plain = self.plain.seconds(plain_steps)?;
        let factors = self.factors.seconds(2)?;
        let both = self.both.seconds(2)?;
        let mean = ((period - updates) * plain + (updates - 1.0) * factors + both) / period;
        Ok(Times { plain, factors, both, mean })
    }
}

/// Seconds of a step: of each kind, and on average over a period.
#[derive(Clone, Copy)]
struct Times {
    plain: f64,
    factors: f64,
    both: f64,
    mean: f64,
}

/// `L G R`, by ndarray.
struct Products {
    left: Array2<f32>,
    gradient: Array2<f32>,
    right: Array2<f32>,
    half: Array2<f32>,
    out: Array2<f32>,
}

impl Products {
    fn new(n: usize) -> Self {
        let [left, gradient, right, half, out] = [1, 2, 3, 4, 5].map(|seed| matrix(n, seed));
        Self { left, gradient, right, half, out }
    }

    /// Seconds of both.
    fn seconds(&mut self, times: u32) -> f64 {
        let start = Instant::now();
        for _ in 0..times {
            let (left, gradient) = (black_box(&self.left), black_box(&self.gradient));
            general_mat_mul(1.0, left, gradient, 0.0, &mut self.half);
            general_mat_mul(1.0, &self.half, &self.right, 0.0, black_box(&mut self.out));
        }
        start.elapsed().as_secs_f64() / f64::from(times)
    }
}

/// What a turn found.
#[derive(Clone, Copy)]
struct Turn {
    dense: Times,
    coded: Times,
    products: f64,
}

/// One figure of a turn.
type Ratio = fn(&Turn) -> f64;

/// Lower quartile, median, upper quartile.
fn quartiles(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| {
        let place = values.len().saturating_sub(1) * quarter / 4;
        values.get(place).copied().unwrap_or(f64::NAN)
    })
}

/// Medians of one storage in milliseconds.
fn line(name: &str, times: impl Iterator<Item = Times> + Clone) -> String {
    let parts: [fn(Times) -> f64; 4] = [|t| t.plain, |t| t.factors, |t| t.both, |t| t.mean];
    let medians = parts.map(|part| {
        let [_, middle, _] = quartiles(times.clone().map(part));
        format!("{:9.3}", 1e3 * middle)
    });
    format!("  {name}  {}", medians.join("  "))
}

fn main() -> eigenstep::Result<()> {
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(()); // cargo test --all-targets
    }
    println!(
        "milliseconds of a step: without factors and roots, with factors, with both, on average"
    );
    for (n, turns, plain_steps) in CASES {
        let mut dense = Period::new(FactorStorage::Dense, n)?;
        let mut coded = Period::new(FactorStorage::EIGEN4, n)?;
        let mut products = Products::new(n);
        let mut found = Vec::new();
        for turn in 0..turns {
            // who comes first has another's cache
            let first = (turn % 2 == 1).then(|| coded.measure(plain_steps)).transpose()?;
            let dense = dense.measure(plain_steps)?;
            let products = products.seconds(plain_steps);
            let coded = first.map_or_else(|| coded.measure(plain_steps), Ok)?;
            found.push(Turn { dense, coded, products });
        }
        println!("order {n}, {turns} turns");
        println!("{}", line("dense", found.iter().map(|turn| turn.dense)));
        println!("{}", line("4-bit", found.iter().map(|turn| turn.coded)));
        let ratios: [(&str, Ratio); 4] = [
            ("4-bit over dense, on average", |turn| turn.coded.mean / turn.dense.mean),
            ("  without factors and roots", |turn| turn.coded.plain / turn.dense.plain),
            ("dense without them, over two products", |turn| turn.dense.plain / turn.products),
            ("4-bit without them, over two products", |turn| turn.coded.plain / turn.products),
        ];
        for (what, ratio) in ratios {
            let [low, middle, high] = quartiles(found.iter().map(ratio));
            println!("  {what}: {middle:.2} ({low:.2} - {high:.2})");
        }
    }
    Ok(())
}
