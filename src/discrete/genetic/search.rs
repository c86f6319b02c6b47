//! How a genetic search is configured.

/// Genetic search: the best few of all vectors so far have children, and children that are better than
/// the worst of them replace it.
///
/// *Use it when* a loss without a gradient depends on a handful to some thousands of discrete parameters,
/// such as bits per layer, codes or switches. *Not when* the weights of a network have to be trained: the
/// search uses only the order of the losses.
///
/// ```text
/// every child:   a, b        two of the parents, drawn uniformly, perhaps the same
///                x_j         b_j with probability `crossover`, else a_j
///                x_j         with probability `mutation`: Integer, a draw from its range;
///                            Real, clamp(x_j + sigma·normal, low, high)
/// survivors:     the `elite` vectors with the smallest losses; parents win ties, NaN is last
/// ```
/// The first generation is drawn uniformly from the domain, or given by the caller.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `elite` | 5 | authors' code |
/// | `offspring` | 50 | authors' code |
/// | `crossover` | 0.3 | – |
/// | `mutation` | 1 over the number of genes | usual |
/// | `seed` | 0 | – |
///
/// State: `elite` vectors and their losses, with 8 bytes per number. Children are functions of the seed,
/// the generation and the parents, and are never stored. The best loss never gets worse, and all children
/// are in the domain.
///
/// # Errors
/// `build` refuses `elite` and `offspring` of 0, `offspring` of 2²⁴ and more, probabilities outside `[0,
/// 1]`, and genes that [`Gene::validate`](crate::discrete::genetic::Gene::validate) refuses.
///
/// # Examples
/// ```
/// use eigenstep::discrete::genetic::{Gene, GeneticSearch};
///
/// let target = [3.0, -1.0, 4.0, 1.0, -5.0];
/// let genes = vec![Gene::Integer { low: -8, high: 7 }; 5];
/// let mut search = GeneticSearch { seed: 1, ..GeneticSearch::default() }.build(genes)?;
/// for _ in 0..60 {
///     let candidates = search.ask()?;
///     let losses: Vec<f64> = candidates
///         .iter()
///         .map(|x| x.iter().zip(target).map(|(x, t)| (x - t).abs()).sum())
///         .collect();
///     search.tell(&losses)?;
/// }
/// assert_eq!(search.best(), Some((&target[..], 0.0)));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// In the authors' code, vectors are tables of records. It changes one record of the best table only, and
/// chooses among four kinds of change by their success. Here every survivor can be a parent.
///
/// # Source
/// T. Liu, J. Tang, G. Vietri, Z. S. Wu, "Generating Private Synthetic Data with Genetic Algorithms",
/// ICML 2023.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct GeneticSearch {
    /// The number of survivors, `>= 1`.
    pub elite: usize,
    /// The number of children per generation, `>= 1`.
    pub offspring: usize,
    /// The probability that a gene comes from the second parent, in `[0, 1]`.
    pub crossover: f64,
    /// The probability that a gene mutates, in `[0, 1]`. `None` stands for one gene per child on average.
    pub mutation: Option<f64>,
    /// The seed of the random numbers.
    pub seed: u64,
}
crate::config_file::named_fields!(GeneticSearch);

impl Default for GeneticSearch {
    fn default() -> Self {
        Self { elite: 5, offspring: 50, crossover: 0.3, mutation: None, seed: 0 }
    }
}

crate::hyperparameters!(GeneticSearch, "GeneticSearch", {
    "elite": Count(1, (1 << 24) - 1) = elite;
    "offspring": CountFrom(1) = offspring;
    "crossover": Unit = crossover;
}, |config| {
    if config.offspring >= 1 << 24 {
        // the number of a child has 24 bits in a counter
        return Err(Self::invalid("offspring", "below 2^24", config.offspring.to_string()));
    }
    match config.mutation {
        Some(p) if !(0.0..=1.0).contains(&p) => {
            Err(Self::invalid("mutation", "unset or in [0, 1]", p.to_string()))
        }
        _ => Ok(()),
    }
});
