//! Windows of gradients, dense and compressed with error feedback, on images of digits.
//!
//! ```text
//! cargo run --release --example error_feedback
//! cargo run --release --example error_feedback -- --help
//! ```
//!
//! Every method gets the learning rate of its grid with the lowest training loss, then trains the same
//! small network from several seeds. The program prints one table, and draws the losses. To add a
//! method, add a line to the table in `methods.rs`.

#[path = "../common/mod.rs"]
mod common;
mod methods;
mod train;

use common::args::{Options, listed};
use common::plot::{Curve, losses};
use common::{Problem, data, make_folder, write_plots};
use methods::Method;
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use train::{Run, WIDTHS, train};

/// Seed of the runs that choose the learning rate.
const TUNING_SEED: u32 = 0;

/// Three images in ten are kept for the test.
const TEST_SHARE: data::Share = (3, 10);

const OPTIONS: [(&str, &str, &str); 5] = [
    ("--methods", "A,B", "methods to compare (default all)"),
    ("--seeds", "N", "runs of every method (default 3)"),
    ("--epochs", "N", "passes over the training set (default 15)"),
    ("--out", "DIR", "folder for the plot (default target/error_feedback)"),
    ("--help", "", "print this text"),
];

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    eprintln!("error_feedback: {error}");
    ExitCode::from(if error.is::<Problem>() { 2 } else { 1 })
}

struct Args {
    methods: Vec<Method>,
    seeds: u32,
    epochs: usize,
    out: PathBuf,
}

/// Reads the arguments; `None`: help is asked for.
fn arguments() -> Result<Option<Args>, Problem> {
    let (methods, out) = (methods::table(), PathBuf::from("target/error_feedback"));
    let mut args = Args { methods, seeds: 3, epochs: 15, out };
    let mut options = Options::new(std::env::args_os().skip(1));
    while let Some(option) = options.next_option()? {
        match option.as_str() {
            "--methods" => args.methods = choose(&options.value("names separated by commas")?)?,
            "--seeds" => args.seeds = options.number(1, 1000)?,
            "--epochs" => args.epochs = options.number(1, 10_000)?,
            "--out" => args.out = PathBuf::from(options.value("a folder")?),
            "--help" | "-h" => return options.flag().map(|()| None),
            _ => return Err(options.unknown(&OPTIONS)),
        }
    }
    Ok(Some(args))
}

fn choose(names: &str) -> Result<Vec<Method>, Problem> {
    let table = methods::table();
    let known: Vec<&str> = table.iter().map(|method| method.name).collect();
    let find = |name: &str| {
        let found = table.iter().find(|method| method.name == name.trim()).copied();
        found.ok_or_else(|| {
            let known = known.join("; ");
            Problem(format!("--methods: expected some of {known}; found `{name}`"))
        })
    };
    // names hold commas: those that are followed by a known name part them
    let mut parts: Vec<String> = Vec::new();
    for word in names.split(',') {
        let joined = parts.last().map(|last| format!("{last},{word}"));
        match joined.filter(|joined| known.iter().any(|name| name.starts_with(joined.trim()))) {
            Some(joined) => {
                parts.pop();
                parts.push(joined);
            }
            None => parts.push(word.to_owned()),
        }
    }
    parts.iter().map(|name| find(name)).collect()
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout();
    let Some(args) = arguments()? else {
        let usage = "Usage: cargo run --release --example error_feedback -- [OPTIONS]";
        return Ok(write!(out, "{usage}\n\nOptions:\n{}", listed(&OPTIONS))?);
    };
    let digits = data::load_split(None, TEST_SHARE)?;
    make_folder(&args.out)?;
    let task = (&digits, args.epochs);
    writeln!(
        out,
        "digits, {} images for training and {} for the test; network {WIDTHS:?}; {} epochs, {} seeds\n",
        digits.train.len(),
        digits.test.len(),
        args.epochs,
        args.seeds,
    )?;
    writeln!(
        out,
        "| method | lr | training loss | test accuracy, % | state, bytes per parameter |"
    )?;
    writeln!(out, "|---|---|---|---|---|")?;
    let mut curves: Vec<(&str, Vec<f64>)> = Vec::new();
    for method in &args.methods {
        let mut best = (f64::INFINITY, f64::NAN);
        for lr in method.grid {
            let loss = match train(method, lr, task, TUNING_SEED) {
                Ok(run) => run.losses.last().copied().unwrap_or(f64::NAN),
                Err(_) => f64::INFINITY, // the rate was too large
            };
            if loss < best.0 {
                best = (loss, lr);
            }
        }
        let runs = (1..=args.seeds).map(|seed| train(method, best.1, task, seed));
        let runs: Vec<Run> = runs.collect::<eigenstep::Result<_>>()?;
        writeln!(out, "{}", line(method.name, best.1, &runs))?;
        out.flush()?;
        curves.push((method.name, mean_losses(&runs)));
    }
    let curves: Vec<Curve<'_>> =
        curves.iter().map(|(name, losses)| Curve { name, losses }).collect();
    let subtitle = "mean cross-entropy over all training images, geometric mean over the seeds";
    Ok(write_plots(&args.out, &[("loss.svg", losses("Training loss", subtitle, &curves))])?)
}

/// Geometric means over the runs, epoch by epoch.
fn mean_losses(runs: &[Run]) -> Vec<f64> {
    let epochs = runs.iter().map(|run| run.losses.len()).min().unwrap_or(0);
    let mean = |epoch: usize| {
        let logs = runs.iter().filter_map(|run| run.losses.get(epoch)).map(|loss| loss.ln());
        (logs.sum::<f64>() / runs.len() as f64).exp()
    };
    (0..epochs).map(mean).collect()
}

/// A line of the table.
fn line(name: &str, lr: f64, runs: &[Run]) -> String {
    let count = runs.len() as f64;
    let mean = runs.iter().map(|run| 100.0 * run.accuracy).sum::<f64>() / count;
    let squares = runs.iter().map(|run| (100.0 * run.accuracy - mean).powi(2)).sum::<f64>();
    let deviation = (squares / (count - 1.0).max(1.0)).sqrt();
    let loss = mean_losses(runs).last().copied().unwrap_or(f64::NAN);
    let bytes = runs.first().map_or(0.0, |run| run.state_bytes as f64 / run.params as f64);
    format!("| {name} | {lr} | {loss:.3} | {mean:.2} ± {deviation:.2} | {bytes:.2} |")
}
