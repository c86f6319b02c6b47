//! Runs a target until the time or the number of executions is up, and reports what fails.

use crate::random::Random;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What reads hostile input.
pub trait Target {
    /// Reads one input, and panics if a promise is broken. True: it was accepted.
    fn execute(&mut self, random: &mut Random) -> bool;
}

#[derive(Clone, Copy)]
pub enum Limit {
    Seconds(u64),
    Executions(u64),
}

pub struct Settings {
    pub limit: Limit,
    pub seed: u64,
    /// Run this execution alone.
    pub only: Option<u64>,
}

/// Longest that one execution may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// After so many failures of a target there is enough to do.
const MOST_FAILURES: usize = 20;

static MESSAGE: Mutex<String> = Mutex::new(String::new());

/// Returns the number of failures.
pub fn run(name: &str, target: &mut dyn Target, settings: &Settings) -> usize {
    let hook = take_hook();
    set_hook(Box::new(|info| {
        if let Ok(mut message) = MESSAGE.lock() {
            *message = info.to_string();
        }
    }));
    let (start, mut executed, mut accepted, mut failures) = (Instant::now(), 0, 0u64, 0);
    let first = settings.only.unwrap_or(0);
    for execution in first.. {
        let done = match settings.limit {
            _ if settings.only.is_some() => executed == 1,
            Limit::Seconds(seconds) => start.elapsed() >= Duration::from_secs(seconds),
            Limit::Executions(executions) => executed == executions,
        };
        if done || failures == MOST_FAILURES {
            break;
        }
        // an abort leaves its number behind
        if settings.only.is_some() {
            eprintln!("{name} --seed {} --only {execution}", settings.seed);
        }
        let begun = Instant::now();
        let mut random = Random::new(settings.seed, execution);
        let outcome = catch_unwind(AssertUnwindSafe(|| target.execute(&mut random)));
        executed += 1;
        let failure = match outcome {
            Ok(read) => {
                accepted += u64::from(read);
                let slow = begun.elapsed() > PATIENCE;
                slow.then(|| format!("took {:?}", begun.elapsed()))
            }
            Err(_) => Some(MESSAGE.lock().map(|message| message.clone()).unwrap_or_default()),
        };
        if let Some(failure) = failure {
            failures += 1;
            eprintln!("FAILED {name} --seed {} --only {execution}: {failure}", settings.seed);
        }
    }
    set_hook(hook);
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{name}: {executed} executions in {seconds:.1} s, {accepted} accepted, {failures} failures"
    );
    failures
}
