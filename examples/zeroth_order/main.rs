//! Training by forward passes only, and training of rounded weights, on images of digits.
//!
//! ```text
//! cargo run --release --example zeroth_order
//! cargo run --release --example zeroth_order -- --help
//! ```
//!
//! Every method has the same number of evaluations of the loss; a backward pass counts as two. The learning
//! rate of a method is the one of its grid with the lowest training loss. With it, every method trains the
//! same small network from several seeds. The program prints a table and draws losses over evaluations. To
//! add a method, add a line to the table in `methods.rs`.

#[path = "../common/mod.rs"]
mod common;
mod methods;
mod train;

use common::compare::{Length, Spread, TUNING_SEED, arguments, best_rate, mean_losses};
use common::data::Digits;
use common::plot::{Curve, losses_over};
use common::{Problem, data, make_folder, write_plots};
use methods::{Kind, Method};
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use train::{CHECKPOINTS, Run, WIDTHS, train};

/// Three of ten images are kept for the test.
const TEST_SHARE: data::Share = (3, 10);

const LENGTH: Length = Length {
    option: "--evaluations",
    what: "evaluations of the loss per run (default 100000)",
    default: 100_000,
    range: 1000..=100_000_000,
};

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    eprintln!("zeroth_order: {error}");
    ExitCode::from(if error.is::<Problem>() { 2 } else { 1 })
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout();
    let setup = match arguments("zeroth_order", methods::table(), |method| method.name, &LENGTH) {
        Ok(setup) => setup,
        Err(help) => return Ok(write!(out, "{}", help?)?),
    };
    let Digits { train: images, test } = data::load_split(None, TEST_SHARE)?;
    let digits = Digits { train: images.halved(), test: test.halved() };
    make_folder(&setup.out)?;
    let task = (&digits, setup.length);
    writeln!(
        out,
        "digits of 4 × 4 pixels, {} images for training and {} for the test; network {WIDTHS:?}; {} \
         evaluations, {} seeds\n",
        digits.train.len(),
        digits.test.len(),
        setup.length,
        setup.seeds,
    )?;
    writeln!(out, "| method | evaluations per step | lr | training loss | test accuracy, % |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    let mut curves: Vec<(&Method, Vec<f64>)> = Vec::new();
    for method in &setup.methods {
        let last = |run: Run| run.losses.last().copied().unwrap_or(f64::NAN);
        let grid = method.grid.iter().copied();
        let lr = best_rate(grid, |lr| train(method, lr, task, TUNING_SEED).map(last));
        let runs = (1..=setup.seeds).map(|seed| train(method, lr, task, seed));
        let runs: Vec<Run> = runs.collect::<eigenstep::Result<_>>()?;
        let losses = mean_losses(runs.iter().map(|run| &run.losses));
        let loss = losses.last().copied().unwrap_or(f64::NAN);
        let accuracy = Spread::of(runs.iter().map(|run| 100.0 * run.accuracy));
        let cost = runs.first().map_or(0, |run| run.cost);
        writeln!(out, "| {} | {cost} | {lr} | {loss:.3} | {accuracy} |", method.name)?;
        out.flush()?;
        curves.push((method, losses));
    }
    let draw = |title: &str, rounded: bool| {
        let curves: Vec<Curve<'_>> = (curves.iter())
            .filter(|(method, _)| matches!(method.kind, Kind::Rounded { .. }) == rounded)
            .map(|(method, losses)| Curve { name: method.name, losses })
            .collect();
        let subtitle = "mean cross-entropy over all training images, geometric mean over the seeds";
        let unit = format!("evaluations / {}", setup.length / CHECKPOINTS);
        losses_over(&unit, title, subtitle, &curves)
    };
    let plots = [
        ("forward_only.svg", draw("Forward passes only: training loss", false)),
        ("rounded_weights.svg", draw("Rounded weights: training loss", true)),
    ];
    Ok(write_plots(&setup.out, &plots)?)
}
