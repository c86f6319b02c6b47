//! What the terminal shows: progress, the table, JSON lines.

use crate::common::data::Digits;
use crate::methods::precision_name;
use crate::train::Run;
use std::io::{IsTerminal, Write};

/// The test accuracy whose first epoch the table names.
const GOAL: f64 = 0.95;

/// One line on stderr that tells how far a run is; nothing where stderr is no terminal.
pub struct Progress {
    name: &'static str,
    epochs: usize,
    visible: bool,
}

impl Progress {
    /// A bar of `epochs` epochs.
    pub fn new(name: &'static str, epochs: usize) -> Self {
        Self { name, epochs, visible: std::io::stderr().is_terminal() }
    }

    /// Shows the state after `epoch`.
    pub fn show(&self, epoch: usize, loss: f64, accuracy: f64) {
        const WIDTH: usize = 24;
        if self.visible {
            let Self { name, epochs, .. } = self;
            let full = "█".repeat(WIDTH * epoch / epochs);
            let rest = "░".repeat(WIDTH - WIDTH * epoch / epochs);
            let percent = 100.0 * accuracy;
            eprint!(
                "\r{name:<18} {full}{rest} {epoch}/{epochs}  loss {loss:.1e}  {percent:.1} %\x1b[K"
            );
            // a bar that cannot be drawn is no reason to stop
            let _ = std::io::stderr().flush();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.visible {
            eprint!("\r\x1b[K");
        }
    }
}

impl Run {
    /// Share of the test set that is classified correctly at the end.
    pub fn test_accuracy(&self) -> f64 {
        self.accuracies.last().copied().unwrap_or(0.0)
    }

    /// Loss over the training set at the end.
    pub fn final_loss(&self) -> f64 {
        self.losses.last().copied().unwrap_or(f64::NAN)
    }

    /// Bytes of state per parameter.
    pub fn bytes_per_parameter(&self) -> f64 {
        self.state_bytes as f64 / self.params as f64
    }

    fn epochs_to_goal(&self) -> Option<usize> {
        self.accuracies.iter().position(|&accuracy| accuracy >= GOAL).map(|epoch| epoch + 1)
    }
}

/// The comparison, as text.
pub fn table(runs: &[Run], digits: &Digits, epochs: usize, seed: u32) -> String {
    let params = runs.first().map_or(0, |run| run.params);
    let mut text = format!(
        "{} images to learn from, {} to be tested by; {params} parameters, {epochs} epochs, \
         seed {seed}\n\n",
        digits.train.len(),
        digits.test.len(),
    );
    text += "method              state         test      epochs   training  seconds    state    bytes per\n";
    text += "                                  accuracy  to 95 %      loss               bytes    parameter\n";
    text += &format!("{}\n", "─".repeat(95));
    for run in runs {
        let epochs = run.epochs_to_goal().map_or("never".to_owned(), |epochs| epochs.to_string());
        text += &format!(
            "{:<19} {:<13} {:>6.2} %  {epochs:>7}  {:>8.1e}  {:>7.2}  {:>7}  {:>9.2}\n",
            run.method,
            run.stored,
            100.0 * run.test_accuracy(),
            run.final_loss(),
            run.time.as_secs_f64(),
            run.state_bytes,
            run.bytes_per_parameter(),
        );
    }
    text + "\n"
}

/// One run, as a line of JSON.
pub fn json(run: &Run) -> serde_json::Value {
    serde_json::json!({
        "method": run.method,
        "precision": precision_name(run.precision),
        "state": run.stored,
        "test_accuracy": run.test_accuracy(),
        "epochs_to_95": run.epochs_to_goal(),
        "final_loss": run.final_loss(),
        "seconds": run.time.as_secs_f64(),
        "params": run.params,
        "state_bytes": run.state_bytes,
    })
}
