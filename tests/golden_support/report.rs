//! What passed, what failed, what was skipped: counted, listed, and written to the target folder.

use super::{Outcome, Stop};
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Results of one folder.
#[derive(Debug, Default)]
struct Folder {
    passed: Vec<String>,
    /// Name and message.
    failed: Vec<(String, String)>,
    /// Name and reason.
    skipped: Vec<(String, String)>,
}

/// Results of all folders, by source and name.
#[derive(Debug, Default)]
pub struct Report(BTreeMap<(String, String), Folder>);

impl Report {
    /// Adds the outcome of one case.
    pub fn add(&mut self, source: &str, folder: &str, name: &str, outcome: Outcome) {
        let folder = self.0.entry((source.to_owned(), folder.to_owned())).or_default();
        let name = name.to_owned();
        match outcome {
            Ok(()) => folder.passed.push(name),
            Err(Stop::Fail(message)) => folder.failed.push((name, message)),
            Err(Stop::Skip(reason)) => folder.skipped.push((name, reason)),
        }
    }

    /// One line per folder.
    pub fn summary(&self) -> String {
        let line = |((source, name), folder): (&(String, String), &Folder)| {
            let (passed, failed) = (folder.passed.len(), folder.failed.len());
            let skipped = folder.skipped.len();
            format!("{source} {name}: {passed} passed, {failed} failed, {skipped} skipped\n")
        };
        self.0.iter().map(line).collect()
    }

    /// Every failure in one line.
    pub fn failures(&self) -> Vec<String> {
        let failed = self.0.iter().flat_map(|((source, name), folder)| {
            let line = move |(case, message): &(String, String)| {
                format!("{source} {name}/{case}: {message}")
            };
            folder.failed.iter().map(line)
        });
        failed.collect()
    }

    /// Writes `target/golden/report.json`: folder -> names of what passed, failed and was skipped,
    /// and why.
    ///
    /// A case of both trees is listed once; it has failed if either has.
    pub fn write(&self) -> Result<PathBuf, String> {
        let mut folders: BTreeMap<&str, BTreeMap<&str, (usize, &str)>> = BTreeMap::new();
        for ((_, name), folder) in &self.0 {
            let cases = folders.entry(name).or_default();
            let passed = folder.passed.iter().map(|case| (case.as_str(), (1, "")));
            let skipped =
                folder.skipped.iter().map(|(case, why)| (case.as_str(), (0, why.as_str())));
            let failed = folder.failed.iter().map(|(case, why)| (case.as_str(), (2, why.as_str())));
            for (case, outcome) in passed.chain(skipped).chain(failed) {
                let known = cases.entry(case).or_insert(outcome);
                *known = outcome.max(*known);
            }
        }
        let mut report = Map::new();
        for (name, cases) in folders {
            let names = |rank: usize| -> Vec<&str> {
                cases
                    .iter()
                    .filter(|(_, outcome)| outcome.0 == rank)
                    .map(|(name, _)| *name)
                    .collect()
            };
            let why: BTreeMap<&str, &str> =
                cases.iter().filter(|(_, o)| o.0 != 1).map(|(name, o)| (*name, o.1)).collect();
            let value = json!({
                "passed": names(1), "failed": names(2), "skipped": names(0), "why": why,
            });
            report.insert(name.to_owned(), value);
        }
        let folder = target().join("golden");
        let path = folder.join("report.json");
        let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&path, text + "\n"))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }
}

/// The target folder: cargo puts its temporary folder for tests there, wherever it is.
fn target() -> PathBuf {
    let temporary = option_env!("CARGO_TARGET_TMPDIR").map(Path::new);
    match temporary.and_then(Path::parent) {
        Some(target) => target.to_owned(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("target"),
    }
}
