//! The fields of a configuration that are no options, as words of a state dict: so that none can be forgotten.
//!
//! Options, which are numbers, are saved one by one and taken over. What is left (an enumeration with data, a
//! storage, the rule inside another) decides the algorithm or the layout of state, and has to agree. The fields are
//! found in the `Debug` text of the configuration, which has all of them.

use super::dict::Scalar;
use super::record::{Lookup, Record};
use crate::error::Result;
use crate::hyper::Options;

/// The entry that has the name of the type; those of fields follow it: `config.storage`, `config.inner`.
const CONFIG: &str = "config";

/// Fields that say what is an error, and change no numbers.
const POLICIES: [&str; 1] = ["non_finite"];

/// Writes the fields of a configuration that are no options.
pub(crate) fn save_description(config: &dyn Options, record: &mut Record<'_>) {
    for (path, value) in described(config) {
        record.scalar(&key_of(&path), Scalar::Text(value));
    }
}

/// Whether a description was saved: older dicts have none.
pub(crate) fn has_description(lookup: &Lookup<'_>) -> bool {
    lookup.scalar(CONFIG).is_some()
}

/// Compares the fields saved with those of a configuration. What was not saved, by an older version, does not count.
pub(crate) fn check_description(config: &dyn Options, lookup: &Lookup<'_>) -> Result<()> {
    for (path, expected) in described(config) {
        let key = key_of(&path);
        let Some(saved) = lookup.scalar(&key) else { continue };
        let Some(found) = saved.as_text() else {
            return Err(lookup.problem(&key, "is no text"));
        };
        if !same(&expected, found) {
            let advice = "build the optimizer as it was built when this was saved";
            let text = format!("expected `{expected}`, found `{found}`; {advice}");
            return Err(lookup.problem(&key, text));
        }
    }
    Ok(())
}

fn key_of(path: &str) -> String {
    if path.is_empty() { CONFIG.to_owned() } else { format!("{CONFIG}.{path}") }
}

/// Numbers are the same however they are written.
fn same(a: &str, b: &str) -> bool {
    let numbers = a.parse::<f64>().ok().zip(b.parse::<f64>().ok());
    a == b || numbers.is_some_and(|(a, b)| a == b)
}

/// Path and value of every field that is no option: that stays as it is when all options are set to something else.
fn described(config: &dyn Options) -> Vec<(String, String)> {
    // a flag and a count differ in the first two, what may be unset in the last
    let [zero, one, unset] = [0.0, 1.0, f64::NAN].map(|value| fields(&config.describe(value)));
    let (Some(mut found), Some(one), Some(unset)) = (zero, one, unset) else { return Vec::new() };
    found.retain(|field| {
        let (path, value) = field;
        let policy = path.rsplit('.').next().is_some_and(|name| POLICIES.contains(&name));
        !policy && !value.is_empty() && one.contains(field) && unset.contains(field)
    });
    found
}

/// Every field of a `Debug` text by its path, with its value; for structures the name of the type, for lists their
/// length. `None` if the text is not of the form that is derived.
fn fields(text: &str) -> Option<Vec<(String, String)>> {
    let mut parser = Parser { rest: text, fields: Vec::new() };
    parser.value("", 0)?;
    parser.rest.trim().is_empty().then_some(parser.fields)
}

/// Deeper nesting is no configuration.
const DEPTH: usize = 64;

struct Parser<'t> {
    rest: &'t str,
    fields: Vec<(String, String)>,
}

impl<'t> Parser<'t> {
    /// Goes over `token`, if it comes next.
    fn takes(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// The text up to the first of `ends`.
    fn until(&mut self, ends: &[char]) -> &'t str {
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        text.trim()
    }

    fn push(&mut self, path: &str, value: impl Into<String>) {
        self.fields.push((path.to_owned(), value.into()));
    }

    fn value(&mut self, path: &str, depth: usize) -> Option<()> {
        if depth > DEPTH {
            return None;
        }
        if self.takes("\"") {
            let text = self.quoted()?;
            self.push(path, text);
            return Some(());
        }
        let head = self.until(&['{', '}', '(', ')', '[', ']', ',']);
        if self.takes("{") {
            self.push(path, head);
            while !self.takes("}") {
                if !self.takes("..") {
                    let name = self.until(&[':', '}']);
                    self.takes(":").then_some(())?;
                    self.value(&joined(path, name), depth + 1)?;
                    self.takes(",");
                }
            }
        } else if self.takes("(") {
            self.push(path, head);
            self.items(path, ")", depth)?;
        } else if self.takes("[") {
            let count = self.items(path, "]", depth)?;
            self.push(path, format!("a list of {count}"));
        } else {
            self.push(path, head);
        }
        Some(())
    }

    fn items(&mut self, path: &str, end: &str, depth: usize) -> Option<usize> {
        let mut count = 0;
        while !self.takes(end) {
            self.value(&joined(path, &count.to_string()), depth + 1)?;
            count += 1;
            let more = self.takes(",");
            (more || self.rest.trim_start().starts_with(end)).then_some(())?;
        }
        Some(count)
    }

    /// A text up to the closing quotation mark, as it is written.
    fn quoted(&mut self) -> Option<&'t str> {
        let mut escaped = false;
        let end = self.rest.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        let (text, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.strip_prefix('"')?;
        Some(text)
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    #[expect(dead_code, reason = "only written as text")]
    enum Kind {
        Plain,
        Pair(f64, Option<u64>),
        Named { label: String, list: Vec<f64> },
    }

    #[test]
    fn every_field_is_found() {
        let kinds = (Kind::Plain, Kind::Pair(1e-8, Some(3)));
        let label = "a \"b\", {c".to_owned();
        let named = Kind::Named { label, list: vec![-0.5, f64::INFINITY] };
        let text = format!("{:?}", (kinds, named));
        let found = fields(&text).unwrap_or_default();
        let found: Vec<String> =
            found.iter().map(|(path, value)| format!("{path}={value}")).collect();
        let expected = [
            "=",
            "0=",
            "0.0=Plain",
            "0.1=Pair",
            "0.1.0=1e-8",
            "0.1.1=Some",
            "0.1.1.0=3",
            "1=Named",
            "1.label=a \\\"b\\\", {c",
            "1.list.0=-0.5",
            "1.list.1=inf",
            "1.list=a list of 2",
        ];
        assert_eq!(found, expected);
        assert_eq!((fields("Broken { a"), fields("]")), (None, None));
        assert!(same("1e-8", "0.00000001") && !same("Plain", "Pair"));
    }
}
