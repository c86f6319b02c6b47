//! Options in a state dict, each under its name.

use super::described::{check_description, has_description, save_description};
use super::dict::Scalar;
use super::record::{Lookup, Record};
use crate::error::{Error, Result};
use crate::hyper::{Hyper, Options, Range};

/// What is saved for an option that is not set.
const UNSET: &str = "unset";

/// Writes every option under its name, and what is no option as text.
pub(crate) fn save_options(config: &mut dyn Options, record: &mut Record<'_>) {
    config.visit(&mut |option| record.scalar(option.name, saved_option(&option)));
    save_description(config, record);
}

/// An option as a state dict holds it.
fn saved_option(option: &Hyper<'_>) -> Scalar {
    let value = option.value.get();
    match option.range {
        Range::Flag => Scalar::Bool(value != 0.0),
        Range::CountFrom(_) | Range::Count(..) | Range::Choice(_) => Scalar::Int(value as i64),
        _ if value.is_nan() => Scalar::Text(UNSET.into()),
        _ => Scalar::Float(value),
    }
}

/// Writes saved options into a configuration, and compares what is no option; after an error it may have changed.
///
/// Dicts of older versions may lack options, which then stay as they are.
pub(crate) fn load_options(config: &mut dyn Options, lookup: &Lookup<'_>) -> Result<()> {
    let mut outcome = Ok(());
    let complete = has_description(lookup);
    config.visit(&mut |option| {
        let Some(scalar) = lookup.scalar(option.name) else {
            if complete && outcome.is_ok() {
                outcome = Err(lookup.problem(option.name, "is missing"));
            }
            return;
        };
        let value = if scalar.as_text() == Some(UNSET) { Some(f64::NAN) } else { scalar.as_f64() };
        match value.filter(|value| option.range.contains(*value)) {
            Some(value) => option.value.set(value),
            None if outcome.is_ok() => {
                let expected = option.range.describe();
                outcome = Err(lookup.problem(option.name, format!("must be {expected}")));
            }
            None => {}
        }
    });
    outcome?;
    check_description(config, lookup)?;
    config.check_together().map_err(|error| match error {
        Error::InvalidHyperparameter { field, expected, found, .. } => {
            lookup.problem(field, format!("must be {expected}, got {found}"))
        }
        other => other,
    })
}
