//! From the option names of a reference implementation to those of the crate.

use super::{Outcome, fail, json};
use eigenstep::hyper::{Hyperparameters, Range};
use serde_json::{Map, Value};

/// Options of the crate with their numbers.
pub type Assignments = Vec<(String, f64)>;

/// How a reference spells the crate's options.
#[derive(Clone, Copy, Debug)]
pub struct Spelling {
    /// Options: the reference's name, the crate's name.
    options: &'static [(&'static str, &'static str)],
    /// Variants of enumerations.
    variants: &'static [(&'static str, &'static str)],
}

impl Spelling {
    /// Names that are not listed are the same on both sides.
    pub const fn new(
        options: &'static [(&'static str, &'static str)],
        variants: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self { options, variants }
    }

    /// Every key of `given` as an option of `C` and its number; a key that `C` does not have is an
    /// error, so that no option is ignored.
    pub fn translate<C: Hyperparameters>(
        self,
        config: &C,
        given: &Map<String, Value>,
    ) -> Outcome<Assignments> {
        let mut options = Vec::new();
        for (key, value) in given {
            let name = lookup(self.options, key);
            match value {
                // `betas` is `betas.0` and `betas.1`
                Value::Array(parts) => {
                    for (index, part) in parts.iter().enumerate() {
                        let name = format!("{name}.{index}");
                        let number = self.number(config, &name, part)?;
                        options.push((name, number));
                    }
                }
                value => options.push((name.to_owned(), self.number(config, name, value)?)),
            }
        }
        Ok(options)
    }

    fn number<C: Hyperparameters>(self, config: &C, name: &str, value: &Value) -> Outcome<f64> {
        let mut range = None;
        config.clone().visit_options(&mut |option| {
            if option.name == name {
                range = Some(option.range);
            }
        });
        let Some(range) = range else {
            return Err(fail(format!("config: `{name}` is not understood by {}", C::NAME)));
        };
        let number = match (value, range) {
            (Value::Null, _) => f64::NAN,
            (Value::Bool(flag), _) => f64::from(u8::from(*flag)),
            (Value::String(text), Range::Choice(names)) => {
                let variant = lookup(self.variants, text);
                let place = names.iter().position(|name| *name == variant);
                place.map_or(f64::NAN, |place| place as f64)
            }
            _ => json::number(value)?,
        };
        if range.contains(number) {
            return Ok(number);
        }
        Err(fail(format!("config: `{name}` must be {}, got {value}", range.describe())))
    }
}

fn lookup<'t>(table: &[(&str, &'static str)], name: &'t str) -> &'t str {
    table.iter().find(|(theirs, _)| *theirs == name).map_or(name, |(_, ours)| ours)
}

/// Writes numbers into a configuration; whether they fit together is checked when it is built.
pub fn assign<C: Hyperparameters>(config: &mut C, options: &[(String, f64)]) {
    config.visit_options(&mut |option| {
        if let Some((_, number)) = options.iter().find(|(name, _)| name == option.name) {
            option.value.set(*number);
        }
    });
}
