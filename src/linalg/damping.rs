/// A multiple of the identity that is added to a matrix before it is inverted.
///
/// ```text
/// ε = max(relative · λ̄, absolute)        λ̄ ≈ λmax(A); how it is found is the method's choice
/// ```
///
/// # Examples
/// ```
/// use eigenstep::linalg::Damping;
///
/// assert_eq!(Damping::relative(1e-4).ridge(50.0), 5e-3);
/// assert_eq!(Damping::absolute(1e-12).ridge(50.0), 1e-12);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Damping {
    /// In units of the largest eigenvalue, `>= 0`.
    pub relative: f64,
    /// A lower bound, or the whole damping, `>= 0`.
    pub absolute: f64,
}

impl Damping {
    /// ε = `epsilon`, whatever the matrix.
    pub const fn absolute(epsilon: f64) -> Self {
        Self { relative: 0.0, absolute: epsilon }
    }

    /// ε = `epsilon`·λmax: the root of cA is then exactly as well conditioned as that of A.
    pub const fn relative(epsilon: f64) -> Self {
        Self { relative: epsilon, absolute: 0.0 }
    }

    /// ε for a matrix whose largest eigenvalue is `largest`.
    pub const fn ridge(self, largest: f64) -> f64 {
        (self.relative * largest).max(self.absolute)
    }
}
