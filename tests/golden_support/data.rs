//! Finding and reading cases: plain files of one case, and archives of a whole family.

use super::{Outcome, Stop, fail};
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};

/// All `.json` and `.json.gz` files below `root`, in the order of their names.
pub fn files(root: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(root)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    entries.sort();
    let mut found = Vec::new();
    for path in entries {
        if path.is_dir() {
            found.extend(files(&path));
        } else if name(&path).ends_with(".json") || name(&path).ends_with(".json.gz") {
            found.push(path);
        }
    }
    found
}

/// The cases of one file: folder, name, and the case itself.
///
/// An object with the field `origin` is one case; any other object maps names to cases. A file
/// directly in `root` counts as the folder of its own name.
pub fn cases(root: &Path, path: &Path) -> Vec<(String, String, Outcome<Value>)> {
    let stem = name(path).trim_end_matches(".gz").trim_end_matches(".json").to_owned();
    let parent = path.parent().and_then(|parent| parent.strip_prefix(root).ok());
    let folder = match parent.map(|parent| parent.display().to_string()) {
        Some(folder) if !folder.is_empty() => folder,
        _ => stem.clone(),
    };
    match read(path) {
        Err(problem) => vec![(folder, stem, Err(problem))],
        Ok(case) if case.get("origin").is_some() => vec![(folder, stem, Ok(case))],
        Ok(Value::Object(cases)) => {
            cases.into_iter().map(|(name, case)| (folder.clone(), name, Ok(case))).collect()
        }
        Ok(_) => vec![(folder, stem, Err(Stop::Skip("is no object".into())))],
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn read(path: &Path) -> Outcome<Value> {
    let problem = |error: &dyn std::fmt::Display| fail(format!("{}: {error}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| problem(&error))?;
    let mut text = Vec::new();
    if name(path).ends_with(".gz") {
        let mut decoder = flate2::read::GzDecoder::new(bytes.as_slice());
        decoder.read_to_end(&mut text).map_err(|error| problem(&error))?;
    } else {
        text = bytes;
    }
    serde_json::from_slice(&text).map_err(|error| problem(&error))
}
