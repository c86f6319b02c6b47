//! Which table the codes index, and how a number is rounded to a code.

/// Which table the codes of a block index; see [`code_table`](super::code_table()) for the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum QuantMap {
    /// 8 bits, evenly spaced; the fastest to compute.
    ///
    /// Signed slots: `c/127` for `c = −127..=127`. Unsigned slots: evenly spaced square roots
    /// without zero, `((c + 1)/256)²`. A second moment is divided by, as its root, so what counts is
    /// the resolution of the root; and a table with a zero would turn a small second
    /// moment into `m/(√0 + eps)`, an enormous step. So a nonzero block never decodes to 0, at the
    /// price of rounding the smallest `v` up to `max/65536` (a root of 1/256 of the largest).
    Linear,
    /// 8 or 4 bits, the dynamic tree of bitsandbytes: 7 (3) decades, each with twice the points of
    /// the one below; relative precision over six orders of magnitude. Zero is exact.
    Dynamic,
    /// 4 bits: the dynamic tree for signed slots, and the evenly spaced `(c + 1)/16` without zero for
    /// unsigned ones, for the reason given at [`QuantMap::Linear`] (torchao, lpmm).
    DynamicLinear,
}

impl QuantMap {
    pub(super) fn admissible_bits(self) -> &'static str {
        match self {
            Self::Linear => "8",
            Self::Dynamic => "4 or 8",
            Self::DynamicLinear => "4",
        }
    }
}

/// How `x / scale` is computed, and which code a value in the middle between two gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Ties {
    /// To the even step; only for, and the only one for, [`QuantMap::Linear`].
    Even,
    /// bitsandbytes: `y = clamp(x · (1 / max(scale, 1e-38)), −1, 1)`, ties to the lower code.
    Lower,
    /// torchao: `scale = max(max |x|, 1e-12)`, `y = x / scale`, ties to the upper code. A zero block
    /// keeps the scale 1e-12, so that a table without zero decodes it to `table[0] · 1e-12`.
    Upper,
}
