//! One number for all groups, or one for each.

use crate::error::{Error, Result};
use crate::hyper::Range;

/// One number for all parameter groups, or one for each.
///
/// # Examples
/// ```
/// use eigenstep::schedule::PerGroup;
///
/// let (all, each): (PerGroup, PerGroup) = (0.1.into(), [0.1, 0.3].into());
/// assert_eq!((all.get(1), each.get(1)), (0.1, 0.3));
/// assert!(each.get(2).is_nan());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(untagged))]
#[non_exhaustive]
pub enum PerGroup {
    /// The same number for every group.
    All(f64),
    /// One number per group, in the order of the groups.
    Each(Vec<f64>),
}

impl PerGroup {
    /// The number of a group; NaN if the list is too short.
    pub fn get(&self, group: usize) -> f64 {
        match self {
            PerGroup::All(value) => *value,
            PerGroup::Each(values) => values.get(group).copied().unwrap_or(f64::NAN),
        }
    }

    /// Every number given.
    pub(super) fn values(&self) -> &[f64] {
        match self {
            PerGroup::All(value) => std::slice::from_ref(value),
            PerGroup::Each(values) => values,
        }
    }

    /// Checks the length of a list, and every number against `range`.
    pub(super) fn check(
        &self,
        schedule: &'static str,
        field: &'static str,
        groups: usize,
        range: Range,
    ) -> Result<()> {
        if let PerGroup::Each(values) = self {
            let found = values.len();
            if found != groups {
                return Err(Error::GroupValues { schedule, field, groups, found });
            }
        }
        match self.values().iter().find(|&&value| !range.contains(value)) {
            Some(value) => Err(Error::InvalidHyperparameter {
                optimizer: schedule,
                field,
                expected: range.describe(),
                found: value.to_string(),
            }),
            None => Ok(()),
        }
    }

    /// The numbers as options `name`, or `name.0`, `name.1`, …
    pub(super) fn list(&self, name: &str, out: &mut Vec<(String, f64)>) {
        match self {
            PerGroup::All(value) => out.push((name.to_owned(), *value)),
            PerGroup::Each(values) => {
                out.extend(values.iter().enumerate().map(|(i, &x)| (format!("{name}.{i}"), x)));
            }
        }
    }
}

impl From<f64> for PerGroup {
    fn from(value: f64) -> Self {
        PerGroup::All(value)
    }
}

impl From<Vec<f64>> for PerGroup {
    fn from(values: Vec<f64>) -> Self {
        PerGroup::Each(values)
    }
}

impl<const N: usize> From<[f64; N]> for PerGroup {
    fn from(values: [f64; N]) -> Self {
        PerGroup::Each(values.to_vec())
    }
}
