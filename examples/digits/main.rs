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
#[path = "../common/mod.rs"]
mod common;
mod methods;
mod plot;
mod report;
mod train;

use args::{Args, Command};
use common::{Problem, data, make_folder, write_plots};
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

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
    make_folder(out)?;

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
    write_plots(out, &[("loss.svg", plot::loss(&runs)), ("bytes.svg", plot::bytes(&runs))])?;
    Ok(())
}
