//! Training by forward passes only, and training of rounded weights, on images of digits.
//!
//! ```text
//! cargo run --release --example zeroth_order
//! cargo run --release --example zeroth_order -- --help
//! ```
//!
//! Every method may evaluate the loss equally often; a backward pass counts as two evaluations. Every
//! method gets the learning rate of its grid with the lowest training loss, then trains the same small
//! network from several seeds. The program prints a table, and draws losses over evaluations. To add a
//! method, add a line to the table in `methods.rs`.

#[path = "../common/mod.rs"]
mod common;
mod methods;
mod train;

use common::args::{Options, listed};
use common::data::Digits;
use common::plot::{Curve, losses_over};
use common::{Problem, data, make_folder, write_plots};
use methods::{Kind, Method};
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use train::{CHECKPOINTS, Run, WIDTHS, train};

/// Seed of the runs that choose the learning rate.
const TUNING_SEED: u32 = 0;

/// Three images in ten are kept for the test.
const TEST_SHARE: data::Share = (3, 10);

const OPTIONS: [(&str, &str, &str); 5] = [
    ("--methods", "A;B", "methods to compare (default all)"),
    ("--seeds", "N", "runs of every method (default 3)"),
    ("--evaluations", "N", "evaluations of the loss per run (default 100000)"),
    ("--out", "DIR", "folder for the plots (default target/zeroth_order)"),
    ("--help", "", "print this text"),
];

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    eprintln!("zeroth_order: {error}");
    ExitCode::from(if error.is::<Problem>() { 2 } else { 1 })
}

struct Args {
    methods: Vec<Method>,
    seeds: u32,
    evaluations: usize,
    out: PathBuf,
}

/// Reads the arguments; `None`: help is asked for.
fn arguments() -> Result<Option<Args>, Problem> {
    let (methods, out) = (methods::table(), PathBuf::from("target/zeroth_order"));
    let mut args = Args { methods, seeds: 3, evaluations: 100_000, out };
    let mut options = Options::new(std::env::args_os().skip(1));
    while let Some(option) = options.next_option()? {
        match option.as_str() {
            "--methods" => args.methods = choose(&options.value("names separated by ;")?)?,
            "--seeds" => args.seeds = options.number(1, 1000)?,
            "--evaluations" => args.evaluations = options.number(1000, 100_000_000)?,
            "--out" => args.out = PathBuf::from(options.value("a folder")?),
            "--help" | "-h" => return options.flag().map(|()| None),
            _ => return Err(options.unknown(&OPTIONS)),
        }
    }
    Ok(Some(args))
}

fn choose(names: &str) -> Result<Vec<Method>, Problem> {
    let table = methods::table();
    let find = |name: &str| {
        let found = table.iter().find(|method| method.name == name.trim()).cloned();
        found.ok_or_else(|| {
            let known: Vec<&str> = table.iter().map(|method| method.name).collect();
            Problem(format!("--methods: expected some of {}; found `{name}`", known.join("; ")))
        })
    };
    names.split(';').map(find).collect()
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout();
    let Some(args) = arguments()? else {
        let usage = "Usage: cargo run --release --example zeroth_order -- [OPTIONS]";
        return Ok(write!(out, "{usage}\n\nOptions:\n{}", listed(&OPTIONS))?);
    };
    let Digits { train, test } = data::load_split(None, TEST_SHARE)?;
    let digits = Digits { train: train.halved(), test: test.halved() };
    make_folder(&args.out)?;
    writeln!(
        out,
        "digits of 4 × 4 pixels, {} images for training and {} for the test; network {WIDTHS:?}; {} \
         evaluations, {} seeds\n",
        digits.train.len(),
        digits.test.len(),
        args.evaluations,
        args.seeds,
    )?;
    writeln!(out, "| method | evaluations per step | lr | training loss | test accuracy, % |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    let mut curves: Vec<(&Method, Vec<f64>)> = Vec::new();
    for method in &args.methods {
        let runs = tuned(method, &digits, &args)?;
        writeln!(out, "{}", line(method.name, &runs))?;
        out.flush()?;
        curves.push((method, mean_losses(&runs)));
    }
    let draw = |title: &str, rounded: bool| {
        let curves: Vec<Curve<'_>> = (curves.iter())
            .filter(|(method, _)| matches!(method.kind, Kind::Rounded { .. }) == rounded)
            .map(|(method, losses)| Curve { name: method.name, losses })
            .collect();
        let subtitle = "mean cross-entropy over all training images, geometric mean over the seeds";
        let unit = format!("evaluations / {}", args.evaluations / CHECKPOINTS);
        losses_over(&unit, title, subtitle, &curves)
    };
    let plots = [
        ("forward_only.svg", draw("Forward passes only: training loss", false)),
        ("rounded_weights.svg", draw("Rounded weights: training loss", true)),
    ];
    Ok(write_plots(&args.out, &plots)?)
}

/// Runs at the learning rate that is best from the tuning seed.
fn tuned(method: &Method, digits: &Digits, args: &Args) -> Result<(Vec<Run>, f64), Box<dyn Error>> {
    let mut best = (f64::INFINITY, f64::NAN);
    for &lr in &method.grid {
        let loss = match train(method, lr, (digits, args.evaluations), TUNING_SEED) {
            Ok(run) => run.losses.last().copied().unwrap_or(f64::NAN),
            Err(_) => f64::INFINITY, // the rate was too large
        };
        if loss < best.0 {
            best = (loss, lr);
        }
    }
    let run = |seed| train(method, best.1, (digits, args.evaluations), seed);
    let runs = (1..=args.seeds).map(run).collect::<eigenstep::Result<_>>()?;
    Ok((runs, best.1))
}

/// Geometric means over the runs, checkpoint by checkpoint.
fn mean_losses((runs, _): &(Vec<Run>, f64)) -> Vec<f64> {
    let checkpoints = runs.iter().map(|run| run.losses.len()).min().unwrap_or(0);
    let mean = |checkpoint: usize| {
        let logs = runs.iter().filter_map(|run| run.losses.get(checkpoint)).map(|loss| loss.ln());
        (logs.sum::<f64>() / runs.len() as f64).exp()
    };
    (0..checkpoints).map(mean).collect()
}

/// A line of the table.
fn line(name: &str, runs: &(Vec<Run>, f64)) -> String {
    let loss = mean_losses(runs).last().copied().unwrap_or(f64::NAN);
    let (runs, lr) = runs;
    let count = runs.len() as f64;
    let mean = runs.iter().map(|run| 100.0 * run.accuracy).sum::<f64>() / count;
    let squares = runs.iter().map(|run| (100.0 * run.accuracy - mean).powi(2)).sum::<f64>();
    let deviation = (squares / (count - 1.0).max(1.0)).sqrt();
    let cost = runs.first().map_or(0, |run| run.cost);
    format!("| {name} | {cost} | {lr} | {loss:.3} | {mean:.2} ± {deviation:.2} |")
}
