//! The options of an optimizer: name, admissible range, and the field that holds the value.
//!
//! One table per method, written with [`hyperparameters!`](crate::hyperparameters), serves
//! validation, `set_option`, schedulers, parameter groups and state dicts.
//!
//! ```
//! use eigenstep::{hyper::Hyperparameters, prelude::*};
//!
//! let mut config = AdamW::default();
//! config.set_option("betas.1", 0.95)?;
//! assert_eq!(config.option("betas.1"), Some(0.95));
//! let error = config.set_option("lr", -1.0).map_err(|error| error.to_string());
//! assert_eq!(error, Err("AdamW: `lr` must be finite and >= 0, got -1".into()));
//! # Ok::<(), eigenstep::Error>(())
//! ```

// Floor 1.

use crate::error::{Error, Result};
use crate::numeric::limits::MOST_COUNT;
use std::fmt::Debug;

/// The admissible values of one option.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Range {
    /// `x > 0`.
    Positive,
    /// `x >= 0`.
    NonNegative,
    /// `x <= 0`: exponents of what decays.
    NonPositive,
    /// `0 <= x < 1`: decay rates of moving averages.
    UnitHalfOpen,
    /// `0 <= x <= 1`.
    Unit,
    /// `0 < x < 1`.
    UnitOpen,
    /// `x > 1`, infinity included.
    AboveOne,
    /// `x >= 1`, infinity included.
    FromOne,
    /// Any finite number.
    Finite,
    /// Any number, infinities included.
    Number,
    /// `true` or `false`; as a number 1 or 0.
    Flag,
    /// An integer of at least this value.
    CountFrom(u64),
    /// An integer from the first to the second value, both included: sizes of memory, numbers of
    /// iterations.
    Count(u64, u64),
    /// One of the first `n` integers: the variants of an enumeration.
    Choice(&'static [&'static str]),
    /// `0 <= x < 1`, or unset (NaN as a number).
    OptionalUnitHalfOpen,
    /// `x >= 0`, or unset (NaN as a number).
    OptionalNonNegative,
    /// `x > 0`, or unset (NaN as a number).
    OptionalPositive,
}

impl Range {
    /// Whether `x` is admissible.
    pub fn contains(self, x: f64) -> bool {
        match self {
            Range::Positive => x > 0.0 && x.is_finite(),
            Range::NonNegative => x >= 0.0 && x.is_finite(),
            Range::NonPositive => x <= 0.0 && x.is_finite(),
            Range::UnitHalfOpen => (0.0..1.0).contains(&x),
            Range::Unit => (0.0..=1.0).contains(&x),
            Range::UnitOpen => x > 0.0 && x < 1.0,
            Range::AboveOne => x > 1.0,
            Range::FromOne => x >= 1.0,
            Range::Finite => x.is_finite(),
            Range::Number => !x.is_nan(),
            Range::Flag => x == 0.0 || x == 1.0,
            Range::CountFrom(least) => Range::Count(least, MOST_COUNT).contains(x),
            Range::Count(least, most) => x.fract() == 0.0 && x >= least as f64 && x <= most as f64,
            Range::Choice(names) => x.fract() == 0.0 && x >= 0.0 && x < names.len() as f64,
            Range::OptionalUnitHalfOpen => x.is_nan() || (0.0..1.0).contains(&x),
            Range::OptionalNonNegative => x.is_nan() || x >= 0.0 && x.is_finite(),
            Range::OptionalPositive => x.is_nan() || x > 0.0 && x.is_finite(),
        }
    }

    /// The admissible number that `x` stands for if it is out of range by rounding alone: the nearest
    /// integer for counts; the end of the range that it misses by less than `1e-12` of its size or of that
    /// of `base`; `base` itself, if it is as near. Other numbers stay as they are.
    pub(crate) fn settled(self, x: f64, base: f64) -> f64 {
        let ends = match self {
            Range::CountFrom(_) | Range::Count(..) => return x.round(),
            Range::NonNegative | Range::UnitHalfOpen | Range::NonPositive => &[0.0][..],
            Range::OptionalUnitHalfOpen | Range::OptionalNonNegative => &[0.0],
            Range::Unit => &[0.0, 1.0],
            Range::FromOne => &[1.0],
            _ => &[],
        };
        let near = |end: f64| (x - end).abs() <= 1e-12 * x.abs().max(base.abs());
        let mut known =
            ends.iter().copied().chain([base].into_iter().filter(|&x| self.contains(x)));
        if self.contains(x) { x } else { known.find(|&end| near(end)).unwrap_or(x) }
    }

    /// The admissible values in words, as error messages print them.
    pub fn describe(self) -> String {
        match self {
            Range::Positive => "finite and > 0".into(),
            Range::NonNegative => "finite and >= 0".into(),
            Range::NonPositive => "finite and <= 0".into(),
            Range::UnitHalfOpen => "in [0, 1)".into(),
            Range::Unit => "in [0, 1]".into(),
            Range::UnitOpen => "in (0, 1)".into(),
            Range::AboveOne => "> 1".into(),
            Range::FromOne => ">= 1".into(),
            Range::Finite => "finite".into(),
            Range::Number => "a number".into(),
            Range::Flag => "0 (false) or 1 (true)".into(),
            Range::CountFrom(least) => format!("an integer >= {least}"),
            Range::Count(least, most) => format!("an integer >= {least} and <= {most}"),
            Range::Choice(names) => {
                let names: Vec<String> =
                    names.iter().enumerate().map(|(i, name)| format!("{i} ({name})")).collect();
                names.join(" or ")
            }
            Range::OptionalUnitHalfOpen => "unset (NaN) or in [0, 1)".into(),
            Range::OptionalNonNegative => "unset (NaN) or finite and >= 0".into(),
            Range::OptionalPositive => "unset (NaN) or finite and > 0".into(),
        }
    }
}

/// A field that can be read and written as a number.
pub trait OptionValue {
    /// The value as a number: flags are 0 or 1, unset options NaN.
    fn get(&self) -> f64;
    /// Writes a number that the option's [`Range`] contains.
    fn set(&mut self, value: f64);
}

impl OptionValue for f64 {
    fn get(&self) -> f64 {
        *self
    }
    fn set(&mut self, value: f64) {
        *self = value;
    }
}
impl OptionValue for bool {
    fn get(&self) -> f64 {
        f64::from(u8::from(*self))
    }
    fn set(&mut self, value: f64) {
        *self = value != 0.0;
    }
}
impl OptionValue for u64 {
    fn get(&self) -> f64 {
        *self as f64
    }
    fn set(&mut self, value: f64) {
        // a counter from a file can be counted on
        *self = (value as u64).min(MOST_COUNT);
    }
}
impl OptionValue for usize {
    fn get(&self) -> f64 {
        *self as f64
    }
    fn set(&mut self, value: f64) {
        *self = (value as u64).min(MOST_COUNT) as usize;
    }
}
impl OptionValue for Option<f64> {
    fn get(&self) -> f64 {
        self.unwrap_or(f64::NAN)
    }
    fn set(&mut self, value: f64) {
        *self = (!value.is_nan()).then_some(value);
    }
}

/// One option of a method: its name, its range, its place.
#[expect(missing_debug_implementations, reason = "a borrowed view that lives for one call")]
pub struct Hyper<'a> {
    /// Name as in `set_option` and state dicts: `lr`, `betas.0`, `weight_decay`.
    pub name: &'static str,
    /// Admissible values.
    pub range: Range,
    /// The field itself.
    pub value: &'a mut dyn OptionValue,
}

/// A configuration whose numeric options can be listed, checked and changed by name.
///
/// Implement it with [`hyperparameters!`](crate::hyperparameters).
pub trait Hyperparameters: Clone + Debug + Send + Sync + 'static {
    /// Name of the method, as in error messages and state dicts.
    const NAME: &'static str;

    /// Calls `visitor` for every option, in a fixed order.
    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>));

    /// Checks that no single option can express, such as "`nesterov` needs `momentum > 0`".
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`], built with [`Hyperparameters::invalid`].
    fn validate_together(&self) -> Result<()> {
        Ok(())
    }

    /// Checks every option against its range, and all of them together.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names the first option that does not fit.
    fn validate(&self) -> Result<()> {
        validate(&mut self.clone())
    }

    /// The error for a wrong option.
    fn invalid(
        field: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        Error::invalid(Self::NAME, field, expected, found.into())
    }

    /// The value of the option `name`; `None` if there is no such option.
    fn option(&self, name: &str) -> Option<f64> {
        let mut found = None;
        self.clone().visit_options(&mut |option| {
            if option.name == name {
                found = Some(option.value.get());
            }
        });
        found
    }

    /// Changes the option `name`, and checks the whole configuration.
    ///
    /// # Errors
    /// [`Error::UnknownOption`], or [`Error::InvalidHyperparameter`]; then nothing has changed.
    fn set_option(&mut self, name: &str, value: f64) -> Result<()> {
        let mut changed = self.clone();
        set_option(&mut changed, name, value)?;
        *self = changed;
        Ok(())
    }
}

/// [`Hyperparameters`] behind a pointer: what does not depend on the type of a configuration is
/// compiled once, not once per method.
#[doc(hidden)]
pub trait Options {
    /// [`Hyperparameters::NAME`].
    fn method_name(&self) -> &'static str;
    /// [`Hyperparameters::visit_options`].
    fn visit(&mut self, visitor: &mut dyn FnMut(Hyper<'_>));
    /// [`Hyperparameters::validate_together`].
    fn check_together(&self) -> Result<()>;
    /// Every field as `Debug` writes it, with `value` for all options.
    fn describe(&self, value: f64) -> String;
}

impl<C: Hyperparameters> Options for C {
    fn method_name(&self) -> &'static str {
        C::NAME
    }
    fn visit(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.visit_options(visitor);
    }
    fn check_together(&self) -> Result<()> {
        self.validate_together()
    }
    fn describe(&self, value: f64) -> String {
        let mut config = self.clone();
        config.visit_options(&mut |option| option.value.set(value));
        format!("{config:?}")
    }
}

fn invalid(name: &'static str, field: &'static str, range: Range, found: f64) -> Error {
    Error::invalid(name, field, range.describe(), found.to_string())
}

/// [`Hyperparameters::validate`].
pub(crate) fn validate(options: &mut dyn Options) -> Result<()> {
    let mut wrong = None;
    let (mut names, mut twice) = (Vec::new(), None);
    options.visit(&mut |option| {
        if names.contains(&option.name) {
            twice = Some(option.name);
        }
        names.push(option.name);
        let value = option.value.get();
        if wrong.is_none() && !option.range.contains(value) {
            wrong = Some((option.name, option.range, value));
        }
    });
    if let Some(field) = twice {
        // one name in `set_option` and state dicts would stand for both
        let expected = "an option of one of the nested methods alone";
        return Err(Error::invalid(options.method_name(), field, expected, "twice".to_owned()));
    }
    match wrong {
        Some((field, range, value)) => Err(invalid(options.method_name(), field, range, value)),
        None => options.check_together(),
    }
}

/// [`Hyperparameters::set_option`] of a copy: after an error it may have changed.
pub(crate) fn set_option(options: &mut dyn Options, name: &str, value: f64) -> Result<()> {
    let optimizer = options.method_name();
    let mut outcome = None;
    let mut known = Vec::new();
    options.visit(&mut |option| {
        known.push(option.name);
        if option.name != name {
        } else if option.range.contains(value) {
            option.value.set(value);
            outcome = Some(Ok(()));
        } else {
            outcome = Some(Err(invalid(optimizer, option.name, option.range, value)));
        }
    });
    outcome.unwrap_or_else(|| {
        let (name, known) = (name.to_owned(), known.join(", "));
        Err(Error::UnknownOption { optimizer, name, known })
    })?;
    options.check_together()
}

/// Implements [`Hyperparameters`] from a table of options.
///
/// Each line reads `"name": Range = place;`, where the place is a field, or a part of one. An
/// optional block behind the table checks options together.
///
/// # Examples
/// ```
/// use eigenstep::hyper::Hyperparameters;
///
/// #[derive(Clone, Debug)]
/// struct Momentum { lr: f64, betas: (f64, f64), nesterov: bool }
///
/// eigenstep::hyperparameters!(Momentum, "Momentum", {
///     "lr": NonNegative = lr;
///     "betas.0": UnitHalfOpen = betas.0;
///     "betas.1": UnitHalfOpen = betas.1;
///     "nesterov": Flag = nesterov;
/// });
///
/// let wrong = Momentum { lr: 0.1, betas: (0.9, 1.0), nesterov: false };
/// let message = wrong.validate().map_err(|error| error.to_string());
/// assert_eq!(message, Err("Momentum: `betas.1` must be in [0, 1), got 1".into()));
/// ```
#[macro_export]
macro_rules! hyperparameters {
    ($type:ty, $name:literal, {
        $($option:literal : $range:ident $(($($argument:tt)*))? = $($place:tt).+ ;)*
    } $(, |$config:ident| $check:block)?) => {
        impl $crate::hyper::Hyperparameters for $type {
            const NAME: &'static str = $name;
            fn visit_options(&mut self, visitor: &mut dyn FnMut($crate::hyper::Hyper<'_>)) {
                // a table may be empty
                let _ = &visitor;
                $(visitor($crate::hyper::Hyper {
                    name: $option,
                    range: $crate::hyper::Range::$range $(($($argument)*))?,
                    value: &mut self.$($place).+,
                });)*
            }
            $(fn validate_together(&self) -> $crate::Result<()> {
                let $config = self;
                $check
            })?
        }
    };
}
