//! Hostile input for everything that reads, with fixed seeds: see `README.md`.
// what is found is said by panicking
#![allow(unsafe_code)]

mod harness;
mod memory;
mod mutate;
mod random;
mod targets;

use eigenstep_instances as _;
use harness::{Limit, Settings};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

const USAGE: &str =
    "eigenstep-fuzz [TARGET | all] [--seconds N | --executions N] [--seed N] [--only N]";

fn main() {
    let mut settings = Settings { limit: Limit::Seconds(20), seed: 1, only: None };
    let mut chosen = "all".to_owned();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> u64 {
            let text = arguments.next().unwrap_or_default();
            text.replace('_', "").parse().unwrap_or_else(|_| panic!("{USAGE}"))
        };
        match argument.as_str() {
            "--seconds" => settings.limit = Limit::Seconds(number()),
            "--executions" => settings.limit = Limit::Executions(number()),
            "--seed" => settings.seed = number(),
            "--only" => settings.only = Some(number()),
            name if !name.starts_with('-') => chosen = name.to_owned(),
            _ => panic!("{USAGE}"),
        }
    }
    let targets = targets::all();
    let known = targets.iter().any(|(name, _)| *name == chosen);
    assert!(known || chosen == "all", "{USAGE}; targets: {}", targets::names());
    let mut failures = 0;
    for (name, make) in targets {
        if chosen == "all" || chosen == name {
            failures += harness::run(name, &mut *make(), &settings);
        }
    }
    std::process::exit(i32::from(failures > 0));
}
