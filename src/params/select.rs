//! Which parameters belong to a group.

use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;

type Test = dyn Fn(&str, &[usize]) -> bool + Send + Sync;

/// Chooses parameters by name, by shape, or by any condition.
///
/// # Examples
/// ```
/// use eigenstep::params::Select;
///
/// let undecayed = Select::name("*.bias").or(Select::ndim(..=1));
/// assert!(undecayed.matches("fc1.bias", &[10]) && undecayed.matches("norm.scale", &[10]));
/// assert!(!undecayed.matches("fc1.weight", &[10, 20]));
/// assert_eq!(undecayed.label(), "*.bias | ndim ..=1");
/// ```
#[derive(Clone)]
pub struct Select {
    label: String,
    test: Arc<Test>,
    may_be_empty: bool,
}

impl Select {
    /// Every parameter.
    pub fn all() -> Self {
        Self::by("all", |_, _| true)
    }

    /// Parameters whose path matches `pattern`, in which `*` stands for any characters, dots
    /// included, and `?` for a single one.
    pub fn name(pattern: &str) -> Self {
        let glob: Vec<char> = pattern.chars().collect();
        Self::by(pattern, move |name, _| {
            let name: Vec<char> = name.chars().collect();
            matches(&glob, &name)
        })
    }

    /// Parameters whose number of dimensions lies in `range`; a scalar has none.
    pub fn ndim(range: impl RangeBounds<usize> + fmt::Debug + Send + Sync + 'static) -> Self {
        let label = format!("ndim {range:?}");
        Self::by(label, move |_, shape| range.contains(&shape.len()))
    }

    /// Parameters for which `test(name, shape)` holds; `label` appears in errors and state dicts.
    pub fn by(
        label: impl Into<String>,
        test: impl Fn(&str, &[usize]) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { label: label.into(), test: Arc::new(test), may_be_empty: false }
    }

    /// The same selector, of parameters that may all be left out of the tree: frozen ones. A selector without
    /// this mark that has never matched any parameter is taken for a typing error.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::prelude::*;
    /// use ndarray::array;
    ///
    /// let encoder = Select::name("encoder.*").may_be_empty(); // frozen for now, and left out of the tree
    /// let mut opt = AdamW::default().build()?.with_group(encoder, |group| group.lr = 1e-4)?;
    /// let mut head = array![1.0f32];
    /// opt.step(&mut head, &array![1.0])?;
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn may_be_empty(mut self) -> Self {
        self.may_be_empty = true;
        self
    }

    /// Whether matching no parameter is no mistake.
    pub(crate) fn is_optional(&self) -> bool {
        self.may_be_empty
    }

    /// Parameters that this or `other` selects.
    pub fn or(self, other: Select) -> Self {
        let label = format!("{} | {}", self.label, other.label);
        Self::by(label, move |name, shape| self.matches(name, shape) || other.matches(name, shape))
    }

    /// Parameters that this and `other` select.
    pub fn and(self, other: Select) -> Self {
        let label = format!("({}) & ({})", self.label, other.label);
        Self::by(label, move |name, shape| self.matches(name, shape) && other.matches(name, shape))
    }

    /// Whether the parameter `name` of shape `shape` is selected.
    pub fn matches(&self, name: &str, shape: &[usize]) -> bool {
        (self.test)(name, shape)
    }

    /// What the selector is called in errors and state dicts.
    pub fn label(&self) -> &str {
        &self.label
    }
}

/// `!select`: the parameters that `select` does not select.
impl std::ops::Not for Select {
    type Output = Self;
    fn not(self) -> Self {
        let label = format!("!({})", self.label);
        Self::by(label, move |name, shape| !self.matches(name, shape))
    }
}

impl fmt::Debug for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Select").field(&self.label).finish()
    }
}

/// Glob matching with one point of return: the last `*` seen.
fn matches(glob: &[char], name: &[char]) -> bool {
    let (mut g, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match glob.get(g) {
            Some('*') => {
                star = Some((g + 1, n));
                g += 1;
            }
            Some(&c) if c == '?' || Some(&c) == name.get(n) => {
                g += 1;
                n += 1;
            }
            _ => match star {
                // let the star swallow one more character and try again
                Some((after, swallowed)) => {
                    star = Some((after, swallowed + 1));
                    g = after;
                    n = swallowed + 1;
                }
                None => return false,
            },
        }
    }
    glob.get(g..).is_some_and(|rest| rest.iter().all(|&c| c == '*'))
}

#[cfg(test)]
mod tests {
    use super::Select;

    #[test]
    fn globs() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*.bias", "fc1.bias", true),
            ("*.bias", "bias", false),
            ("fc?.*", "fc1.weight", true),
            ("fc?.*", "fc12.weight", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2b3", false),
            ("fc1.weight", "fc1.weight", true),
            ("fc1.weight", "fc1.weights", false),
        ] {
            assert_eq!(Select::name(pattern).matches(name, &[]), expected, "{pattern} on {name}");
        }
    }
}
