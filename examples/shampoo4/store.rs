//! Runs on disk, one line of JSON each, so that a table can grow without being made again.

use crate::common::Problem;
use crate::train::Run;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The runs in a folder.
pub struct Store {
    file: PathBuf,
    known: HashMap<String, Value>,
}

impl Store {
    /// The runs that `folder` holds; none of them counts unless `resume`.
    pub fn open(folder: &Path, resume: bool) -> Self {
        let file = folder.join("runs.jsonl");
        let text =
            if resume { fs::read_to_string(&file).unwrap_or_default() } else { String::new() };
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let named = lines.filter_map(|run| Some((run.get("key")?.as_str()?.to_owned(), run)));
        Self { known: named.collect(), file }
    }

    /// The run called `key`, from disk or from `train`, which is then added.
    pub fn run(
        &self,
        key: &str,
        train: impl FnOnce() -> eigenstep::Result<Run>,
    ) -> eigenstep::Result<Run> {
        if let Some(run) = self.known.get(key).and_then(read) {
            return Ok(run);
        }
        let run = train()?;
        if let Err(problem) = self.append(key, &run) {
            eprintln!("shampoo4: {problem}");
        }
        Ok(run)
    }

    fn append(&self, key: &str, run: &Run) -> Result<(), Problem> {
        let line = json!({
            "key": key,
            "losses": run.losses,
            "validation": [run.validation.0, run.validation.1],
            "test_accuracy": run.test_accuracy,
            "seconds": run.seconds,
            "params": run.params,
            "state_bytes": run.state_bytes,
        });
        // in one piece, since others may write to it
        let line = format!("{line}\n");
        let file = OpenOptions::new().append(true).create(true).open(&self.file);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(|error| Problem(format!("{}: {error}", self.file.display())))
    }
}

fn read(run: &Value) -> Option<Run> {
    let numbers = |key: &str| -> Option<Vec<f64>> {
        run.get(key)?.as_array()?.iter().map(Value::as_f64).collect()
    };
    let integer = |key: &str| usize::try_from(run.get(key)?.as_u64()?).ok();
    let [loss, accuracy] = numbers("validation")?.try_into().ok()?;
    Some(Run {
        losses: numbers("losses")?,
        validation: (loss, accuracy),
        test_accuracy: run.get("test_accuracy")?.as_f64()?,
        seconds: numbers("seconds")?,
        params: integer("params")?,
        state_bytes: integer("state_bytes")?,
    })
}
