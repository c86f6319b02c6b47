//! Windows of gradients, dense and compressed with error feedback, on images of digits.
//!
//! ```text
//! cargo run --release --example error_feedback
//! cargo run --release --example error_feedback -- --help
//! ```
//!
//! For every method the program picks the learning rate of a grid with the lowest training loss, then
//! trains the same small network with several seeds. It prints one table, and draws the losses. To add
//! a method, add a line to the table in `methods.rs`.

#[path = "../common/mod.rs"]
mod common;
mod methods;
mod train;

use common::compare::{Length, Spread, TUNING_SEED, arguments, best_rate, mean_losses};
use common::plot::{Curve, losses};
use common::{Problem, data, make_folder, write_plots};
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use train::{Run, WIDTHS, train};

/// Three images in ten are for testing.
const TEST_SHARE: data::Share = (3, 10);

const LENGTH: Length = Length {
    option: "--epochs",
    what: "passes over the training set (default 15)",
    default: 15,
    range: 1..=10_000,
};

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    eprintln!("error_feedback: {error}");
    ExitCode::from(if error.is::<Problem>() { 2 } else { 1 })
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout();
    let setup = match arguments("error_feedback", methods::table(), |method| method.name, &LENGTH) {
        Ok(setup) => setup,
        Err(help) => return Ok(write!(out, "{}", help?)?),
    };
    let digits = data::load_split(None, TEST_SHARE)?;
    make_folder(&setup.out)?;
    let task = (&digits, setup.length);
    writeln!(
        out,
        "digits, {} images for training and {} for the test; network {WIDTHS:?}; {} epochs, {} seeds\n",
        digits.train.len(),
        digits.test.len(),
        setup.length,
        setup.seeds,
    )?;
    writeln!(
        out,
        "| method | lr | training loss | test accuracy, % | state, bytes per parameter |"
    )?;
    writeln!(out, "|---|---|---|---|---|")?;
    let mut curves: Vec<(&str, Vec<f64>)> = Vec::new();
    for method in &setup.methods {
        let last = |run: Run| run.losses.last().copied().unwrap_or(f64::NAN);
        let lr = best_rate(method.grid, |lr| train(method, lr, task, TUNING_SEED).map(last));
        let runs = (1..=setup.seeds).map(|seed| train(method, lr, task, seed));
        let runs: Vec<Run> = runs.collect::<eigenstep::Result<_>>()?;
        let losses = mean_losses(runs.iter().map(|run| &run.losses));
        let loss = losses.last().copied().unwrap_or(f64::NAN);
        let accuracy = Spread::of(runs.iter().map(|run| 100.0 * run.accuracy));
        let bytes = runs.first().map_or(0.0, |run| run.state_bytes as f64 / run.params as f64);
        writeln!(out, "| {} | {lr} | {loss:.3} | {accuracy} | {bytes:.2} |", method.name)?;
        out.flush()?;
        curves.push((method.name, losses));
    }
    let curves: Vec<Curve<'_>> =
        curves.iter().map(|(name, losses)| Curve { name, losses }).collect();
    let subtitle = "mean cross-entropy over all training images, geometric mean over the seeds";
    Ok(write_plots(&setup.out, &[("loss.svg", losses("Training loss", subtitle, &curves))])?)
}
