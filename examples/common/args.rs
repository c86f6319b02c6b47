//! Options of a command line, as `--option value` or `--option=value`.

use super::Problem;
use std::ffi::OsString;
use std::fmt::Display;
use std::str::FromStr;

/// Reads options one by one.
pub struct Options<I> {
    words: I,
    option: String,
    attached: Option<String>,
}

impl<I: Iterator<Item = OsString>> Options<I> {
    /// Those of the arguments, without the name of the program.
    pub fn new(words: I) -> Self {
        Self { words, option: String::new(), attached: None }
    }

    /// The name of the next option.
    pub fn next_option(&mut self) -> Result<Option<String>, Problem> {
        let Some(word) = self.word()? else { return Ok(None) };
        (self.option, self.attached) = match word.split_once('=') {
            Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        Ok(Some(self.option.clone()))
    }

    /// The value of this option.
    pub fn value(&mut self, expected: &str) -> Result<String, Problem> {
        let value = self.attached.take().map_or_else(|| self.word(), |value| Ok(Some(value)))?;
        let option = &self.option;
        value.ok_or_else(|| Problem(format!("{option}: expected {expected}, found nothing")))
    }

    /// The value of this option, an integer in a range.
    pub fn number<N>(&mut self, least: N, most: N) -> Result<N, Problem>
    where
        N: FromStr + PartialOrd + Display,
    {
        let text = self.value("an integer")?;
        match text.parse() {
            Ok(number) if least <= number && number <= most => Ok(number),
            _ => {
                let expected = format!("an integer from {least} to {most}");
                Err(Problem(format!("{}: expected {expected}, found `{text}`", self.option)))
            }
        }
    }

    /// Refuses a value of this option, which is one without.
    pub fn flag(&self) -> Result<(), Problem> {
        let option = &self.option;
        self.attached.as_ref().map_or(Ok(()), |value| {
            Err(Problem(format!("{option}: expected no value, found `{option}={value}`")))
        })
    }

    /// The problem that this option is none of `known`.
    pub fn unknown(&self, known: &[(&str, &str, &str)]) -> Problem {
        let known = known.iter().map(|(option, ..)| *option).collect::<Vec<_>>().join(", ");
        Problem(format!("expected one of {known}; found `{}`", self.option))
    }

    fn word(&mut self) -> Result<Option<String>, Problem> {
        let utf8 = |word: OsString| {
            word.into_string().map_err(|word| Problem(format!("expected UTF-8, found {word:?}")))
        };
        self.words.next().map(utf8).transpose()
    }
}

/// Options with their values and what they do, one a line.
pub fn listed(options: &[(&str, &str, &str)]) -> String {
    let line = |(option, value, what): &(&str, &str, &str)| {
        format!("  {:<18} {what}\n", format!("{option} {value}"))
    };
    options.iter().map(line).collect()
}
