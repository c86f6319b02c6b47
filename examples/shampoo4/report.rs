//! What the terminal shows: the grid of learning rates, and the table.

use crate::Seeds;
use crate::common::compare::{Spread, mean_losses};
use crate::methods::{GRID, Method};
use crate::train::{Plan, Run};

impl Run {
    /// Epochs until the training loss was below `goal`; its logarithm is taken to be linear within an
    /// epoch.
    fn epochs_to(&self, goal: f64) -> Option<f64> {
        let reached = self.losses.iter().position(|&loss| loss <= goal)?;
        let loss = |epoch: usize| self.losses.get(epoch).map_or(f64::NAN, |loss| loss.ln());
        let Some(before) = reached.checked_sub(1) else { return Some(0.0) };
        let fraction = (loss(before) - goal.ln()) / (loss(before) - loss(reached));
        Some(before as f64 + fraction)
    }

    fn lowest_loss(&self) -> f64 {
        self.losses.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

impl Seeds {
    /// Mean and spread over the seeds.
    pub fn spread(&self, of: impl Fn(&Run) -> f64) -> Spread {
        Spread::of(self.runs.iter().map(of))
    }

    /// Bytes of state; the same for all seeds.
    pub fn state_bytes(&self) -> usize {
        self.runs.iter().map(|run| run.state_bytes).max().unwrap_or(0)
    }

    /// The fastest epoch: what the machine's other work disturbed least.
    fn seconds(&self) -> f64 {
        let seconds = self.runs.iter().flat_map(|run| &run.seconds);
        seconds.copied().fold(f64::INFINITY, f64::min)
    }

    /// The loss of every epoch, averaged as logarithms are.
    pub fn mean_losses(&self) -> Vec<f64> {
        mean_losses(self.runs.iter().map(|run| &run.losses))
    }
}

/// The smallest of 1, 2 and 5 times powers of ten that the training loss of every run reached.
pub fn common_goal(compared: &[Seeds]) -> f64 {
    let runs = compared.iter().flat_map(|seeds| &seeds.runs);
    let reached = runs.map(Run::lowest_loss).fold(0.0, f64::max);
    let powers = (-9..=2).map(|power| 10f64.powi(power));
    let goals = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * power));
    goals.into_iter().find(|&goal| goal >= reached).unwrap_or(f64::INFINITY)
}

/// What is run.
pub fn head(plan: &Plan<'_>, seeds: u32) -> String {
    let images = plan.images;
    let widths = images.widths.map(|width| width.to_string()).join("-");
    format!(
        "{} images to learn from, {} to choose the learning rate by, {} to be tested by\n\
         network {widths}, batches of {}, {} epochs, {seeds} seeds\n\n",
        images.train.len(),
        images.validation.len(),
        images.test.len(),
        plan.batch,
        plan.epochs,
    )
}

/// The first lines of the grid.
pub fn grid_head() -> String {
    let mut text = format!("{:<26}", "learning rate");
    for lr in GRID {
        text += &format!("{lr:>18e}");
    }
    text + "\nvalidation loss, accuracy (* lowest loss, chosen)\n"
}

/// The run with the lowest validation loss.
pub fn best(trials: &[Option<Run>]) -> Option<usize> {
    let ended = trials.iter().enumerate().filter_map(|(i, run)| Some((i, run.as_ref()?)));
    let finite = ended.filter(|(_, run)| run.validation.0.is_finite());
    let best = finite.min_by(|(_, a), (_, b)| a.validation.0.total_cmp(&b.validation.0));
    best.map(|(i, _)| i)
}

/// One method's line of the grid.
pub fn grid_line(method: &Method, trials: &[Option<Run>], best: usize) -> String {
    let mut text = format!("{:<26}", method.name);
    for (i, trial) in trials.iter().enumerate() {
        let star = if i == best { "*" } else { " " };
        let cell = trial.as_ref().map_or("failed".to_owned(), |run| {
            let (loss, accuracy) = run.validation;
            format!("{loss:.4} {:.2} %{star}", 100.0 * accuracy)
        });
        text += &format!("{cell:>18}");
    }
    text + "\n"
}

/// The comparison.
pub fn table(compared: &[Seeds], goal: f64) -> String {
    let to_goal = format!("to loss {goal}");
    let mut text = format!(
        "{:<26}{:>7}  {:>15}  {:>15}  {:>8}  {:>9}  {:>10}  {:>9}\n",
        "method", "lr", "test accuracy", "epochs", "training", "seconds", "state", "bytes per"
    );
    text += &format!(
        "{:<26}{:>7}  {:>15}  {to_goal:>15}  {:>8}  {:>9}  {:>10}  {:>9}\n{}\n",
        "",
        "",
        "",
        "loss",
        "per epoch",
        "bytes",
        "parameter",
        "─".repeat(113)
    );
    for seeds in compared {
        let accuracy = seeds.spread(|run| 100.0 * run.test_accuracy);
        let epochs = seeds.spread(|run| run.epochs_to(goal).unwrap_or(f64::NAN));
        let params = seeds.runs.first().map_or(1, |run| run.params);
        text += &format!(
            "{:<26}{:>7e}  {:>5.2} ± {:.2} %  {:>8.2} ± {:.2}  {:>8.1e}  {:>9.3}  {:>10}  {:>9.2}\n",
            seeds.method,
            seeds.lr,
            accuracy.mean,
            accuracy.deviation,
            epochs.mean,
            epochs.deviation,
            seeds.mean_losses().last().copied().unwrap_or(f64::NAN),
            seeds.seconds(),
            seeds.state_bytes(),
            seeds.state_bytes() as f64 / params as f64,
        );
    }
    text
}
