//! Shampoo in 4 bits compared with Shampoo in full precision and first-order methods, on images of digits.
//!
//! ```text
//! cargo run --release --example shampoo4                      # small: the digits of this folder
//! cargo run --release --example shampoo4 -- --data DIR        # files in the format of MNIST
//! cargo run --release --example shampoo4 -- --help
//! ```
//!
//! Every method gets the learning rate of one grid that is best on a validation set, then trains the
//! same network from several seeds. The program prints the grid, and a table of accuracy, epochs to
//! a training loss that all reach, time and bytes; and draws the losses, and accuracy over bytes. To
//! add a method, add a line to the table in `methods.rs`.

mod args;
#[path = "../common/mod.rs"]
mod common;
mod images;
mod methods;
mod parallel;
mod plot;
mod report;
mod store;
mod train;

use args::{Args, Command};
use common::{Problem, make_folder, write_plots};
use images::Images;
use methods::Method;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use store::Store;
use train::{Plan, Run, train};

/// Seed of the runs that choose the learning rate.
const TUNING_SEED: u32 = 0;

/// A run to be: method, learning rate, seed.
type Job = (Method, f64, u32);

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    eprintln!("shampoo4: {error}");
    ExitCode::from(if error.is::<Problem>() { 2 } else { 1 })
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut stdout = std::io::stdout();
    let args = match args::parse(std::env::args_os().skip(1))? {
        Command::Run(args) => args,
        Command::Help => return Ok(write!(stdout, "{}", args::help())?),
    };
    let images = images::load(args.data.as_deref())?;
    make_folder(&args.out)?;
    let plan = Plan { epochs: args.epochs, batch: args.batch, images: &images };
    let store = Store::open(&args.out, args.resume);
    write!(stdout, "{}", report::head(&plan, args.seeds))?;

    let chosen = tune(&args, &plan, &store, &mut stdout)?;
    let runs = compare(&args, &plan, &store, &chosen)?;
    let goal = report::common_goal(&runs);
    write!(stdout, "\n{}", report::table(&runs, goal))?;
    let plots = [("loss.svg", plot::loss(&runs)), ("accuracy.svg", plot::accuracy(&runs))];
    Ok(write_plots(&args.out, &plots)?)
}

/// The learning rate of the grid for every method.
fn tune(
    args: &Args,
    plan: &Plan<'_>,
    store: &Store,
    out: &mut impl Write,
) -> Result<Vec<f64>, Box<dyn Error>> {
    write!(out, "{}", report::grid_head())?;
    let mut chosen = Vec::new();
    for method in &args.methods {
        let jobs = methods::GRID.map(|lr| -> Job { (*method, lr, TUNING_SEED) });
        let trials = parallel::run(&jobs, |job| stored(store, plan, job).ok())?;
        let best = report::best(&trials).ok_or_else(|| format!("{}: no run ended", method.name))?;
        write!(out, "{}", report::grid_line(method, &trials, best))?;
        chosen.extend(methods::GRID.get(best));
    }
    Ok(chosen)
}

/// The runs of every method with its learning rate, one per seed.
fn compare(
    args: &Args,
    plan: &Plan<'_>,
    store: &Store,
    lrs: &[f64],
) -> Result<Vec<Seeds>, Box<dyn Error>> {
    let mut jobs: Vec<Job> = Vec::new();
    for (method, &lr) in args.methods.iter().zip(lrs) {
        jobs.extend((1..=args.seeds).map(|seed| (*method, lr, seed)));
    }
    let mut ended = parallel::run(&jobs, |job| stored(store, plan, job))?.into_iter();
    let mut compared = Vec::new();
    for (method, &lr) in args.methods.iter().zip(lrs) {
        let own = ended.by_ref().take(args.seeds as usize);
        let runs = own.collect::<eigenstep::Result<Vec<Run>>>();
        let runs = runs.map_err(|error| format!("{}: {error}", method.name))?;
        compared.push(Seeds { method: method.name, lr, runs });
    }
    Ok(compared)
}

/// A run, from disk if it is there.
fn stored(store: &Store, plan: &Plan<'_>, (method, lr, seed): &Job) -> eigenstep::Result<Run> {
    let Plan { epochs, batch, images } = plan;
    let images = images.train.len();
    let key = format!("{} lr {lr:e} seed {seed}: {epochs} × {images} by {batch}", method.name);
    store.run(&key, || train(method, *lr, plan, *seed))
}

/// The runs of one method.
#[derive(Debug)]
pub struct Seeds {
    /// Its name.
    method: &'static str,
    /// Its learning rate.
    lr: f64,
    /// One run per seed.
    runs: Vec<Run>,
}
