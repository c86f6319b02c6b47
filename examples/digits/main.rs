//! Trains one network on handwritten digits with many optimizers, and compares them.
//!
//! ```text
//! cargo run --release --example digits                                  # the default list
//! cargo run --release --example digits -- --methods all --precision int4
//! cargo run --release --example digits -- --help
//! ```
//!
//! Every method starts from the same weights and sees the same batches. The program prints a table
//! and draws two plots: the training loss of every epoch, and the memory that the optimizers hold.
//! To add a method, add a line to the table in `methods.rs`.

mod args;
mod data;
mod methods;
mod network;
mod plot;
mod random;
mod report;
mod train;

use args::{Args, Command};
use std::error::Error;
use std::fs;
use std::io::Write;
use std::process::ExitCode;

/// What the caller has to put right: an argument, or the data file. The exit code is 2.
#[derive(Debug)]
struct Problem(String);

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Problem {}

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    eprintln!("digits: {error}");
    ExitCode::from(if error.is::<Problem>() { 2 } else { 1 })
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut stdout = std::io::stdout();
    let args = match args::parse(std::env::args_os().skip(1))? {
        Command::Run(args) => args,
        Command::Help => return Ok(write!(stdout, "{}", args::help())?),
    };
    let Args { seed, epochs, out, .. } = &args;
    let digits = data::load(args.data.as_deref())?;
    // before the training: a folder that cannot be made should not cost a minute
    let denied = |error| Problem(format!("--out: expected a folder to write to, {out:?}: {error}"));
    fs::create_dir_all(out).map_err(denied)?;

    let mut runs = Vec::new();
    for method in &args.methods {
        let precision = args.precision.unwrap_or(method.precision);
        let run = train::train(method, precision, &digits, *epochs, *seed)
            .map_err(|error| format!("{}: {error}", method.name))?;
        if args.json {
            writeln!(stdout, "{}", report::json(&run))?;
        }
        runs.push(run);
    }
    if !args.json {
        write!(stdout, "{}", report::table(&runs, &digits, *epochs, *seed))?;
    }
    for (name, svg) in [("loss.svg", plot::loss(&runs)), ("bytes.svg", plot::bytes(&runs))] {
        let file = out.join(name);
        fs::write(&file, svg).map_err(denied)?;
        eprintln!("wrote {}", file.display());
    }
    Ok(())
}
