//! Where the loss is evaluated along a direction.

/// The finite difference along a direction: where the loss is evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum FiniteDifference {
    /// At `p + εu` and `p − εu`: two evaluations per direction, error `O(ε²)`.
    #[default]
    Central,
    /// At `p + εu`, and once per step at `p`: one evaluation per direction, error `O(ε)`.
    Forward,
}
