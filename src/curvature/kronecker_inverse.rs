//! How two factors become the inverse of a Kronecker product.

/// How the Kronecker product L ⊗ R of a layer's factors is damped and inverted.
///
/// ```text
/// PerFactor   D = (L + ε_L I)^(−e) G (R + ε_R I)^(−e)         ε_L, ε_R: the damping of each factor
/// Balanced    the same with ε_L = √ε/π, ε_R = √ε·π            π² = (tr R/n)/(tr L/m);  1 if a trace is 0
/// Joint       D = Q_L [(Q_Lᵀ G Q_R) / (λ_L λ_Rᵀ + ε)^e] Q_Rᵀ   L = Q_L Diag(λ_L) Q_Lᵀ, R alike
/// Ekfac       D = Q_L [(Q_Lᵀ G Q_R) / (S + ε)^e] Q_Rᵀ          S ← β·S + (1 − β)·(Y Q_L)²ᵀ(X Q_R)²/samples
/// ```
/// | variant | use it | cost |
/// |---|---|---|
/// | `PerFactor` | by default: damping relative to each factor's λmax needs no tuning | two products per step |
/// | `Balanced` | with an absolute damping: the product is damped by about ε | the same |
/// | `Joint` | with an absolute damping of the product itself, as kfac-pytorch does | four products per step |
/// | `Ekfac` | when statistics are observed at every step: the step sizes follow while the eigenbasis is stale | the same, two products per observation, and S |
///
/// A relative damping of the last three is in units of the largest eigenvalue of L ⊗ R, and of the largest
/// entry of S. Squares and quotients are those of single entries. S begins as `λ_L λ_Rᵀ` whenever the
/// eigenvectors are renewed. It takes samples for independent, so a row per position counts as a sample.
///
/// # Source
/// `Balanced`: J. Martens, R. Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate
/// Curvature", ICML 2015, section 6.3. `Joint`: J. G. Pauloski and others, "KAISA: An Adaptive Second-Order
/// Optimizer Framework for Deep Neural Networks", SC 2021, and its code kfac-pytorch. `Ekfac`: T. George,
/// C. Laurent, X. Bouthillier, N. Ballas, P. Vincent, "Fast Approximate Natural Gradient Descent in a
/// Kronecker-factored Eigenbasis", NeurIPS 2018.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum KroneckerInverse {
    /// The damping is added to each factor.
    #[default]
    PerFactor,
    /// It is split between the factors, by their traces.
    Balanced,
    /// It is added to the products of their eigenvalues.
    Joint,
    /// It is added to second moments along their eigenvectors, which take the place of these products.
    Ekfac,
}

impl KroneckerInverse {
    /// Whether eigenvalues and eigenvectors are kept instead of roots.
    pub(super) fn keeps_eigenpairs(self) -> bool {
        matches!(self, Self::Joint | Self::Ekfac)
    }

    /// Whether both keep the same of a layer.
    pub(super) fn is_stored_like(self, other: Self) -> bool {
        let kept = |inverse: Self| (inverse.keeps_eigenpairs(), inverse == Self::Ekfac);
        kept(self) == kept(other)
    }
}
