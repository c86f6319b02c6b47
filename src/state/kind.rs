//! What a state slot holds: the range of its numbers, and its first value.

/// What a state slot holds; the codec picks its code table from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// Numbers of both signs: first moments, momentum.
    Signed,
    /// Numbers `>= 0`: second moments.
    Unsigned,
    /// A point in parameter space: Schedule-Free's `z`, Prodigy's `p0`. Steps are far smaller than
    /// the codes of few bits are apart, so a point stays in full precision unless it is asked for
    /// by name.
    Point,
}

/// What a slot holds before its first step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SlotInit {
    /// The same number everywhere.
    Value(f64),
    /// A copy of the parameter.
    Parameter,
}
