//! Numbers of trusted implementations: one runner over `tests/golden`, and over the tree that the
//! environment variable `EIGENSTEP_GOLDEN` names. `tests/golden/README.md` describes data and
//! tolerances; `target/golden/report.json` lists what passed, failed, and was skipped.

use eigenstep_instances as _;

mod golden_support;
mod support;

use golden_support::{NEEDS_FEATURE, Outcome, Stop, data, dispatch, fail, report::Report};
use std::path::Path;

/// The crate's own vectors, as the report names them.
const REPOSITORY: &str = "repository";

#[test]
fn golden() -> Result<(), String> {
    let mut report = Report::default();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    run_tree(REPOSITORY, &own, &mut report);
    if let Some(tree) = std::env::var_os("EIGENSTEP_GOLDEN") {
        run_tree("EIGENSTEP_GOLDEN", Path::new(&tree), &mut report);
    }
    let path = report.write()?;
    println!("{}details: {}", report.summary(), path.display());
    let failures = report.failures();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// Runs every case below `root`.
fn run_tree(source: &str, root: &Path, report: &mut Report) {
    let mut found = 0;
    for file in data::files(root) {
        for (folder, name, case) in data::cases(root, &file) {
            let outcome = case.and_then(|case| dispatch::run(&folder, &case));
            let outcome = if source == REPOSITORY { must_run(outcome) } else { outcome };
            report.add(source, &folder, &name, outcome);
            found += 1;
        }
    }
    if found == 0 {
        let problem = format!("no golden vectors in {}", root.display());
        report.add(source, "", "tree", Err(fail(problem)));
    }
}

/// The repository holds vectors of what the crate has: leaving one out needs a feature that is off.
fn must_run(outcome: Outcome) -> Outcome {
    match outcome {
        Err(Stop::Skip(reason)) if !reason.contains(NEEDS_FEATURE) => {
            Err(fail(format!("not run: {reason}")))
        }
        outcome => outcome,
    }
}
