//! Methods on equal terms: the learning rate of a grid that trains best, then several seeds.

use super::Problem;
use super::args::{Options, listed};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Seed of the runs that choose the learning rate.
pub const TUNING_SEED: u32 = 0;

/// What is compared, and how long.
pub struct Setup<M> {
    /// The methods.
    pub methods: Vec<M>,
    /// Runs of every method.
    pub seeds: u32,
    /// Length of a run.
    pub length: usize,
    /// Where the plots go.
    pub out: PathBuf,
}

/// The option that says how long a run is.
pub struct Length {
    /// Its name.
    pub option: &'static str,
    /// What it counts, with the default.
    pub what: &'static str,
    /// The default.
    pub default: usize,
    /// What it may be.
    pub range: RangeInclusive<usize>,
}

/// Reads the arguments of a program; `Err(Ok(text))` is the help that was asked for.
pub fn arguments<M: Clone>(
    program: &str,
    table: Vec<M>,
    name: impl Fn(&M) -> &'static str,
    length: &Length,
) -> Result<Setup<M>, Result<String, Problem>> {
    let folder = format!("target/{program}");
    let plots = format!("folder for the plots (default {folder})");
    let known = [
        ("--methods", "A;B", "methods to compare (default all)"),
        ("--seeds", "N", "runs of every method (default 3)"),
        (length.option, "N", length.what),
        ("--out", "DIR", plots.as_str()),
        ("--help", "", "print this text"),
    ];
    let (default, out) = (length.default, PathBuf::from(&folder));
    let mut setup = Setup { methods: table.clone(), seeds: 3, length: default, out };
    let mut options = Options::new(std::env::args_os().skip(1));
    while let Some(option) = options.next_option().map_err(Err)? {
        let outcome = match option.as_str() {
            "--methods" => options
                .value("names separated by ;")
                .and_then(|names| choose(&names, &table, &name))
                .map(|methods| setup.methods = methods),
            "--seeds" => options.number(1, 1000).map(|seeds| setup.seeds = seeds),
            "--out" => options.value("a folder").map(|out| setup.out = PathBuf::from(out)),
            "--help" | "-h" => {
                options.flag().map_err(Err)?;
                let usage = format!("Usage: cargo run --release --example {program} -- [OPTIONS]");
                return Err(Ok(format!("{usage}\n\nOptions:\n{}", listed(&known))));
            }
            other if other == length.option => {
                let range = (*length.range.start(), *length.range.end());
                options.number(range.0, range.1).map(|length| setup.length = length)
            }
            _ => Err(options.unknown(&known)),
        };
        outcome.map_err(Err)?;
    }
    Ok(setup)
}

fn choose<M: Clone>(
    names: &str,
    table: &[M],
    name: impl Fn(&M) -> &'static str,
) -> Result<Vec<M>, Problem> {
    let find = |wanted: &str| {
        let found = table.iter().find(|method| name(method) == wanted.trim()).cloned();
        found.ok_or_else(|| {
            let known: Vec<&str> = table.iter().map(&name).collect();
            let known = known.join("; ");
            Problem(format!("--methods: expected some of {known}; found `{wanted}`"))
        })
    };
    names.split(';').map(find).collect()
}

/// The learning rate whose run ends with the lowest loss; a run that fails had too large a one.
pub fn best_rate(
    grid: impl IntoIterator<Item = f64>,
    mut last_loss: impl FnMut(f64) -> eigenstep::Result<f64>,
) -> f64 {
    let mut best = (f64::INFINITY, f64::NAN);
    for lr in grid {
        let loss = last_loss(lr).unwrap_or(f64::INFINITY);
        if loss < best.0 {
            best = (loss, lr);
        }
    }
    best.1
}

/// Geometric means over the runs, judgement by judgement.
pub fn mean_losses<'l>(runs: impl Iterator<Item = &'l Vec<f64>> + Clone) -> Vec<f64> {
    let judgements = runs.clone().map(Vec::len).min().unwrap_or(0);
    let count = runs.clone().count() as f64;
    let mean = |i: usize| {
        let logs = runs.clone().filter_map(|losses| losses.get(i)).map(|loss| loss.ln());
        (logs.sum::<f64>() / count).exp()
    };
    (0..judgements).map(mean).collect()
}

/// Mean and standard deviation.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation over seeds; 0 for one seed.
    pub deviation: f64,
}

impl Spread {
    /// Of a few numbers.
    pub fn of(numbers: impl Iterator<Item = f64>) -> Self {
        let numbers: Vec<f64> = numbers.collect();
        let count = numbers.len() as f64;
        let mean = numbers.iter().sum::<f64>() / count;
        let squares: f64 = numbers.iter().map(|x| (x - mean) * (x - mean)).sum();
        Self { mean, deviation: (squares / (count - 1.0).max(1.0)).sqrt() }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ± {:.2}", self.mean, self.deviation)
    }
}
