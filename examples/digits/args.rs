//! The command line.

use crate::common::Problem;
use crate::common::args::{Options, listed};
use crate::methods::{self, Method, PRECISIONS};
use eigenstep::quant::Precision;
use std::ffi::OsString;
use std::path::PathBuf;

/// What to compare, and how.
#[derive(Debug)]
pub struct Args {
    /// The methods, in the order they run.
    pub methods: Vec<Method>,
    /// Passes over the training set.
    pub epochs: usize,
    /// Seed of the weights and of the order of the batches.
    pub seed: u32,
    /// The images; `None` for those that come with the example.
    pub data: Option<PathBuf>,
    /// The folder for the plots.
    pub out: PathBuf,
    /// What all state is stored in; `None` for what each method says.
    pub precision: Option<Precision>,
    /// Print JSON lines instead of a table.
    pub json: bool,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Train and compare.
    Run(Args),
    /// Say how to use the program.
    Help,
}

/// Reads the arguments, without the name of the program.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, Problem> {
    let mut chosen = None;
    let mut parsed = Args {
        methods: Vec::new(),
        epochs: 40,
        seed: 1,
        data: None,
        out: PathBuf::from("target/digits"),
        precision: None,
        json: false,
    };
    let mut options = Options::new(args);
    while let Some(option) = options.next_option()? {
        match option.as_str() {
            "--methods" => {
                chosen = Some(options.value("method names separated by commas, or `all`")?);
            }
            "--epochs" => parsed.epochs = options.number(1, 10_000)?,
            "--seed" => parsed.seed = options.number(0, u32::MAX)?,
            "--data" => parsed.data = Some(options.value("a CSV file")?.into()),
            "--out" => parsed.out = options.value("a folder")?.into(),
            "--precision" => {
                parsed.precision = Some(precision(&options.value("the name of a precision")?)?);
            }
            "--json" => {
                options.flag()?;
                parsed.json = true;
            }
            "--help" | "-h" => {
                options.flag()?;
                return Ok(Command::Help);
            }
            _ => return Err(options.unknown(&OPTIONS)),
        }
    }
    parsed.methods = choose(chosen.as_deref(), parsed.precision.is_some())?;
    Ok(Command::Run(parsed))
}

fn precision(name: &str) -> Result<Precision, Problem> {
    let found = PRECISIONS.iter().find(|(known, _)| *known == name);
    found.map(|&(_, precision)| precision).ok_or_else(|| {
        let known = PRECISIONS.map(|(known, _)| known).join(", ");
        Problem(format!("--precision: expected one of {known}; found `{name}`"))
    })
}

/// The methods named. Where `--precision` is given, those that stand for a precision of their own
/// are left out of lists, and refused by name.
fn choose(names: Option<&str>, precision_given: bool) -> Result<Vec<Method>, Problem> {
    let table = methods::table();
    let fits = |method: &Method| {
        !precision_given || method.precision == Precision::Full && method.coded.is_none()
    };
    let names = match names {
        None => return Ok(table.into_iter().filter(|m| m.by_default && fits(m)).collect()),
        Some("all") => return Ok(table.into_iter().filter(fits).collect()),
        Some(names) => names,
    };
    let find = |name: &str| match table.iter().find(|method| method.name == name) {
        Some(method) if fits(method) => Ok(*method),
        Some(_) => Err(Problem(format!(
            "--methods: expected methods without a precision of their own, since --precision is \
             given; found `{name}`"
        ))),
        None => {
            let known: Vec<&str> = table.iter().map(|method| method.name).collect();
            let known = known.join(", ");
            Err(Problem(format!("--methods: expected `all` or some of {known}; found `{name}`")))
        }
    };
    names.split(',').map(|name| find(name.trim())).collect()
}

const OPTIONS: [(&str, &str, &str); 8] = [
    ("--methods", "A,B", "methods to compare, or `all`"),
    ("--precision", "NAME", "store the state of all of them in this precision"),
    ("--epochs", "N", "passes over the training set (default 40)"),
    ("--seed", "N", "seed of the weights and of the order of the batches (default 1)"),
    ("--data", "FILE", "CSV file of images (default: the one in examples/data)"),
    ("--out", "DIR", "folder for the plots (default target/digits)"),
    ("--json", "", "print one JSON object per method instead of a table"),
    ("--help", "", "print this text"),
];

/// How to use the program.
pub fn help() -> String {
    let mut text = String::from(
        "Trains one network on handwritten digits with many optimizers, and compares them.\n\n\
         Usage: cargo run --release --example digits -- [OPTIONS]\n\nOptions:\n",
    );
    text += &listed(&OPTIONS);
    text += "\nMethods (* by default):\n";
    for method in methods::table() {
        let star = if method.by_default { "*" } else { " " };
        let stored = method.stored(method.precision);
        text += &format!("  {star} {:<20} state in {stored}\n", method.name);
    }
    let precisions = PRECISIONS.map(|(name, _)| name).join(", ");
    text + &format!("\nPrecisions: {precisions}\n")
}

#[cfg(test)]
mod tests {
    use super::{Command, parse};
    use crate::common::Problem;

    fn words(line: &str) -> Result<Command, Problem> {
        parse(line.split_whitespace().map(Into::into))
    }

    #[test]
    fn options_are_read() -> Result<(), Problem> {
        let line = "--methods sgd,lion --epochs=3 --seed 7 --precision int4 --json --out here";
        let Command::Run(args) = words(line)? else {
            return Err(Problem("a run".into()));
        };
        assert_eq!(args.methods.iter().map(|m| m.name).collect::<Vec<_>>(), ["sgd", "lion"]);
        assert_eq!((args.epochs, args.seed, args.json), (3, 7, true));
        assert_eq!(args.precision, Some(eigenstep::quant::Precision::INT4));
        assert_eq!(args.out.to_str(), Some("here"));
        assert!(matches!(words("--seed 1 --help")?, Command::Help));
        Ok(())
    }

    #[test]
    fn a_given_precision_leaves_out_what_has_its_own() -> Result<(), Problem> {
        let Command::Run(args) = words("--methods all --precision bf16")? else {
            return Err(Problem("a run".into()));
        };
        let names: Vec<_> = args.methods.iter().map(|method| method.name).collect();
        assert!(names.iter().all(|name| !name.contains("bit") && !name.ends_with("bf16")));
        assert!(names.contains(&"adamw") && names.contains(&"classp"), "{names:?}");
        Ok(())
    }

    #[test]
    fn mistakes_are_named_with_what_was_expected() {
        for (line, expected) in [
            ("--methods adamx", "some of sgd, adamw, lion"),
            ("--methods adamw-8bit --precision int4", "without a precision of their own"),
            ("--epochs 0", "an integer from 1 to 10000, found `0`"),
            ("--seed -1", "an integer from 0"),
            ("--precision int3", "one of full, bf16, int8"),
            ("--out", "expected a folder, found nothing"),
            ("--json=yes", "expected no value"),
            ("--rate 3", "expected one of --methods"),
        ] {
            let problem = words(line).err().map(|problem| problem.0).unwrap_or_default();
            assert!(problem.contains(expected), "{line}: {problem}");
        }
    }
}
