//! The command line.

use crate::common::Problem;
use crate::common::args::{Options, listed};
use crate::methods::{self, Method};
use std::ffi::OsString;
use std::path::PathBuf;

/// What to compare, and how.
#[derive(Debug)]
pub struct Args {
    /// The methods, in the order they run.
    pub methods: Vec<Method>,
    /// Passes over the training set.
    pub epochs: usize,
    /// Images of a batch.
    pub batch: usize,
    /// Seeds that every method is run with, after its learning rate was chosen.
    pub seeds: u32,
    /// The folder of the images; `None` for those that come with the examples.
    pub data: Option<PathBuf>,
    /// The folder for runs and plots.
    pub out: PathBuf,
    /// Take runs from that folder that were made before.
    pub resume: bool,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Train and compare.
    Run(Args),
    /// Say how to use the program.
    Help,
}

const OPTIONS: [(&str, &str, &str); 8] = [
    ("--methods", "A,B", "methods to compare (default all)"),
    ("--seeds", "N", "runs of every method (default 2; with --data 5)"),
    ("--epochs", "N", "passes over the training set (default 10)"),
    ("--batch", "N", "images of a batch (default 128)"),
    ("--data", "DIR", "folder of MNIST's four files, gzipped or not (default: the digits)"),
    ("--out", "DIR", "folder for runs and plots (default target/shampoo4)"),
    ("--resume", "", "take runs from that folder that were made before"),
    ("--help", "", "print this text"),
];

/// Reads the arguments, without the name of the program.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, Problem> {
    let (mut methods, mut seeds, mut data) = (methods::table(), None, None);
    let (mut epochs, mut batch, mut out) = (10, 128, "target/shampoo4".into());
    let mut resume = false;
    let mut options = Options::new(args);
    while let Some(option) = options.next_option()? {
        match option.as_str() {
            "--methods" => methods = choose(&options.value("names separated by commas")?)?,
            "--seeds" => seeds = Some(options.number(1, 1000)?),
            "--epochs" => epochs = options.number(1, 10_000)?,
            "--batch" => batch = options.number(1, 100_000)?,
            "--data" => data = Some(PathBuf::from(options.value("a folder")?)),
            "--out" => out = PathBuf::from(options.value("a folder")?),
            "--resume" => {
                options.flag()?;
                resume = true;
            }
            "--help" | "-h" => {
                options.flag()?;
                return Ok(Command::Help);
            }
            _ => return Err(options.unknown(&OPTIONS)),
        }
    }
    let seeds = seeds.unwrap_or(if data.is_some() { 5 } else { 2 });
    Ok(Command::Run(Args { methods, epochs, batch, seeds, data, out, resume }))
}

fn choose(names: &str) -> Result<Vec<Method>, Problem> {
    let table = methods::table();
    let find = |name: &str| {
        table.iter().find(|method| method.name == name.trim()).copied().ok_or_else(|| {
            let known: Vec<&str> = table.iter().map(|method| method.name).collect();
            let known = known.join(", ");
            Problem(format!("--methods: expected some of {known}; found `{name}`"))
        })
    };
    names.split(',').map(find).collect()
}

/// How to use the program.
pub fn help() -> String {
    let known: Vec<&str> = methods::table().iter().map(|method| method.name).collect();
    format!(
        "Compares Shampoo in 4 bits with Shampoo in full precision and other methods.\n\n\
         Usage: cargo run --release --example shampoo4 -- [OPTIONS]\n\nOptions:\n{}\n\
         Methods: {}\n",
        listed(&OPTIONS),
        known.join(", "),
    )
}
