//! What a state slot holds: the range of its numbers, and its first value.

/// What a state slot holds; the codec picks its code table from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotKind {
    /// Numbers of both signs: first moments, momentum.
    Signed,
    /// Numbers `>= 0`: second moments.
    Unsigned,
    /// Nothing that is remembered: an input of the step that a rule reads like a slot.
    Input(Input),
    /// A point in parameter space: Schedule-Free's `z`, Prodigy's `p0`. Steps are far smaller than
    /// the codes of few bits are apart, so a point stays in full precision unless it is asked for
    /// by name.
    Iterate,
}

/// An input of a step besides parameter and gradient. A rule reads it like a slot; what it writes there
/// is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// The curvature that came with the gradient; zero in a step without any.
    Curvature,
    /// The magnitude of the curvature. For a tensor of four dimensions, its mean over the last two: one
    /// number for each kernel of a convolution.
    CurvatureMagnitude,
    /// A normal random number, keyed by the rule's seed, the step, the parameter's name and the element.
    Noise,
}

impl SlotKind {
    /// Whether nothing is remembered.
    pub fn is_input(self) -> bool {
        matches!(self, Self::Input(_))
    }
}

/// What a slot holds before its first step.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum SlotInit {
    /// The same number everywhere.
    Value(f64),
    /// A copy of the parameter.
    Parameter,
}

/// Names of the two parts of a slot that is held as means over rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factors {
    /// The means over the rows, as in state dicts: `row_var`.
    pub rows: &'static str,
    /// The means over the columns: `col_var`.
    pub columns: &'static str,
}
