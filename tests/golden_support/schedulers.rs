//! Learning-rate schedules and training utilities.

use super::scheduler_cases::run_scheduler_case;
use super::{Outcome, fail, skip, wrappers};
use serde_json::Value;

/// Whether a case belongs here.
pub fn claims(folder: &str, case: &Value) -> bool {
    folder == "schedulers" || case.get("scheduler").is_some()
}

/// Runs one case.
pub fn run(case: &Value) -> Outcome {
    let name = case.get("scheduler").or_else(|| case.get("kernel")).and_then(Value::as_str);
    if name == Some("parameter_average") {
        return wrappers::averages(case);
    }
    run_scheduler_case(case).map_err(|problem| match problem.ends_with("is not known") {
        true => skip(problem),
        false => fail(problem),
    })
}
