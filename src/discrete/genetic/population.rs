//! A running search.

use super::gene::{Draws, Gene};
use super::operators::{child, survivors};
use super::search::GeneticSearch;
use crate::error::{Error, Result, check_length};
use crate::hyper::Hyperparameters;
use crate::optim::IntoLoss;
use crate::state::{Lookup, Record, Scalar, StateDict, StateTensor};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// A vector and its loss.
#[derive(Clone, Debug, PartialEq)]
struct Member {
    genes: Vec<f64>,
    fitness: f64,
}

/// The report of one generation, which [`Population::tell`] returns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Generation {
    /// The number of the generation, from 0.
    pub generation: u64,
    /// The smallest loss so far; NaN if all losses were NaN.
    pub best: f64,
    /// Whether the best vector comes from this generation.
    pub improved: bool,
    /// How many of its vectors survive.
    pub accepted: usize,
    /// How many losses were NaN.
    pub nan: usize,
}

/// A running genetic search, which [`GeneticSearch::build`] starts.
///
/// [`Population::ask`] returns the candidates, the caller evaluates them anywhere and in any order, and
/// [`Population::tell`] takes the losses. Candidates are not stored: they depend on the seed, the number
/// of the generation and the parents alone. They have the same bits on every machine, and after loading.
///
/// # Examples
/// ```
/// use eigenstep::discrete::genetic::{Gene, GeneticSearch};
///
/// let genes = vec![Gene::Real { low: -2.0, high: 2.0, sigma: 0.2 }; 2];
/// let mut search = GeneticSearch { seed: 7, ..GeneticSearch::default() }.build(genes)?;
/// for _ in 0..40 {
///     search.step(|x| (x[0] - 1.0).powi(2) + (x[1] + 0.5).powi(2))?;
/// }
/// assert!(search.best().is_some_and(|(_, loss)| loss < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Population {
    config: GeneticSearch,
    genes: Vec<Gene>,
    start: Vec<Vec<f64>>,
    generation: u64,
    parents: Vec<Member>,
}

impl GeneticSearch {
    /// Starts a search whose first generation is drawn uniformly from the domain.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names the field.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::discrete::genetic::{Gene, GeneticSearch};
    ///
    /// let genes = vec![Gene::Real { low: 0.0, high: 1.0, sigma: 0.1 }];
    /// let search = GeneticSearch { offspring: 4, ..GeneticSearch::default() }.build(genes)?;
    /// assert_eq!(search.ask()?.len(), 4);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn build(self, genes: Vec<Gene>) -> Result<Population> {
        self.build_from(genes, Vec::new())
    }

    /// Starts a search whose first generation is `start`. If that is empty, it is drawn as by
    /// [`GeneticSearch::build`].
    ///
    /// # Errors
    /// As [`GeneticSearch::build`]; [`Error::LengthMismatch`] for a vector whose length is not the number
    /// of genes; [`Error::InvalidHyperparameter`] with the field `start` for a vector outside the domain.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::discrete::genetic::{Gene, GeneticSearch};
    ///
    /// let genes = vec![Gene::Integer { low: 0, high: 9 }; 2];
    /// let search = GeneticSearch::default().build_from(genes, vec![vec![1.0, 2.0]])?;
    /// assert_eq!(search.ask()?, [[1.0, 2.0]]);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn build_from(self, genes: Vec<Gene>, start: Vec<Vec<f64>>) -> Result<Population> {
        self.validate()?;
        // two blocks of random numbers for every gene, counted in 32 bits
        if genes.is_empty() || genes.len() >= 1 << 31 {
            let found = genes.len().to_string();
            return Err(Self::invalid("genes", "at least 1 and below 2^31", found));
        }
        genes.iter().try_for_each(|gene| gene.validate())?;
        Population::new(self, genes, start)
    }
}

/// The prefix of all keys of a saved search.
const PREFIX: &str = "search";

/// Refuses a vector outside the domain. The error names it `field`.
fn check_vector(genes: &[Gene], field: &'static str, x: &[f64]) -> Result<()> {
    check_length(field, &[genes.len()], genes.len(), x.len())?;
    match genes.iter().zip(x).find(|(gene, x)| !gene.contains(**x)) {
        Some((gene, x)) => {
            Err(GeneticSearch::invalid(field, format!("of the domain {gene:?}"), x.to_string()))
        }
        None => Ok(()),
    }
}

impl Population {
    /// A search before its first generation. The configuration and the genes have been checked.
    fn new(config: GeneticSearch, genes: Vec<Gene>, start: Vec<Vec<f64>>) -> Result<Self> {
        start.iter().try_for_each(|x| check_vector(&genes, "start", x))?;
        Ok(Self { config, genes, start, generation: 0, parents: Vec::new() })
    }

    /// The configuration.
    pub fn config(&self) -> &GeneticSearch {
        &self.config
    }

    /// The domain.
    pub fn genes(&self) -> &[Gene] {
        &self.genes
    }

    /// The number of completed generations.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::discrete::genetic::{Gene, GeneticSearch};
    ///
    /// let genes = vec![Gene::Integer { low: 0, high: 9 }; 2];
    /// let mut search = GeneticSearch::default().build_from(genes, vec![vec![4.0, 2.0]])?;
    /// search.step(|x| x[0])?;
    /// assert_eq!(search.generation(), 1);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The best vector so far and its loss; `None` before the first generation.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::discrete::genetic::{Gene, GeneticSearch};
    ///
    /// let genes = vec![Gene::Integer { low: 0, high: 9 }; 2];
    /// let mut search = GeneticSearch::default().build_from(genes, vec![vec![4.0, 2.0]])?;
    /// search.step(|x| x[0])?;
    /// assert_eq!(search.best(), Some((&[4.0, 2.0][..], 4.0)));
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn best(&self) -> Option<(&[f64], f64)> {
        self.parents().next()
    }

    /// The surviving vectors and their losses, best first.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::discrete::genetic::{Gene, GeneticSearch};
    ///
    /// let genes = vec![Gene::Integer { low: 0, high: 9 }; 2];
    /// let mut search = GeneticSearch::default().build_from(genes, vec![vec![4.0, 2.0]])?;
    /// search.step(|x| x[0])?;
    /// assert_eq!(search.parents().count(), 1);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn parents(&self) -> impl Iterator<Item = (&[f64], f64)> {
        self.parents.iter().map(|member| (member.genes.as_slice(), member.fitness))
    }

    /// The candidates of this generation. A second call returns the same.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] after 2³² generations, because random numbers would repeat.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::discrete::genetic::{Gene, GeneticSearch};
    ///
    /// let genes = vec![Gene::Integer { low: 0, high: 9 }; 2];
    /// let mut search = GeneticSearch::default().build_from(genes, vec![vec![4.0, 2.0]])?;
    /// assert_eq!(search.ask()?, [[4.0, 2.0]]);
    /// search.tell(&[1.5])?;
    /// assert_eq!(search.ask()?.len(), 50);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn ask(&self) -> Result<Vec<Vec<f64>>> {
        let Ok(generation) = u32::try_from(self.generation) else {
            let problem = "there are no random numbers for more than 2^32 generations";
            return Err(Error::OutOfOrder { what: "GeneticSearch::ask", problem });
        };
        if self.parents.is_empty() && !self.start.is_empty() {
            return Ok(self.start.clone());
        }
        // `validate` keeps the number below 2^24
        let children = 0..self.config.offspring as u32;
        let seed = self.config.seed;
        children.map(|child| self.candidate(Draws { seed, generation, child })).collect()
    }

    /// One candidate.
    fn candidate(&self, draws: Draws) -> Result<Vec<f64>> {
        let [a, b] = draws.parents(self.parents.len());
        let (Some(a), Some(b)) = (self.parents.get(a), self.parents.get(b)) else {
            // the first generation
            let genes = self.genes.iter().enumerate();
            return Ok(genes.map(|(j, gene)| gene.draw(&draws.gene(j))).collect());
        };
        let rate = self.config.mutation.unwrap_or(1.0 / self.genes.len().max(1) as f64);
        let numel = self.genes.len();
        let (mut crossover, mut mutation) = (Vec::with_capacity(numel), Vec::with_capacity(numel));
        let mut values = Vec::with_capacity(numel);
        let parents = a.genes.iter().zip(&b.genes);
        for (j, (gene, (&a, &b))) in self.genes.iter().zip(parents).enumerate() {
            let draws = draws.gene(j);
            let (cross, mutate) = (draws.crossover < self.config.crossover, draws.mutation < rate);
            let inherited = if cross { b } else { a };
            crossover.push(cross);
            mutation.push(mutate);
            values.push(if mutate { gene.mutate(inherited, &draws) } else { inherited });
        }
        child(&a.genes, &b.genes, &crossover, &mutation, &values)
    }

    /// Takes the losses of the candidates of [`Population::ask`], in their order. Smaller is better, and
    /// NaN is the worst.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] names `fitness` if there are more or fewer losses than candidates.
    /// Nothing has changed then.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::discrete::genetic::{Gene, GeneticSearch};
    ///
    /// let genes = vec![Gene::Integer { low: 0, high: 9 }; 2];
    /// let mut search = GeneticSearch::default().build_from(genes, vec![vec![4.0, 2.0]])?;
    /// let report = search.tell(&[1.5])?;
    /// assert_eq!((report.best, report.accepted), (1.5, 1));
    /// assert!(search.tell(&[1.5]).is_err());
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn tell(&mut self, fitness: &[f64]) -> Result<Generation> {
        let candidates = self.ask()?;
        check_length("fitness", &[candidates.len()], candidates.len(), fitness.len())?;
        let incumbents = self.parents.len();
        let members = candidates.into_iter().zip(fitness);
        let children = members.map(|(genes, &fitness)| Member { genes, fitness });
        let all: Vec<Member> = self.parents.iter().cloned().chain(children).collect();
        let losses: Vec<f64> = all.iter().map(|member| member.fitness).collect();
        let kept = survivors(&losses, self.config.elite);
        let mut all: Vec<Option<Member>> = all.into_iter().map(Some).collect();
        let take = |&index: &usize| all.get_mut(index).and_then(Option::take);
        self.parents = kept.iter().filter_map(take).collect();
        let generation = self.generation;
        self.generation += 1;
        Ok(Generation {
            generation,
            best: self.best().map_or(f64::NAN, |(_, loss)| loss),
            improved: kept.first().is_some_and(|&index| index >= incumbents),
            accepted: kept.iter().filter(|&&index| index >= incumbents).count(),
            nan: fitness.iter().filter(|loss| loss.is_nan()).count(),
        })
    }

    /// One generation: evaluates `f` at every candidate of [`Population::ask`], and calls
    /// [`Population::tell`].
    ///
    /// # Errors
    /// As [`Population::ask`]; [`Error::Closure`] if `f` fails. Nothing has changed then.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::discrete::genetic::{Gene, GeneticSearch};
    ///
    /// let genes = vec![Gene::Integer { low: 0, high: 9 }; 2];
    /// let mut search = GeneticSearch::default().build_from(genes, vec![vec![4.0, 2.0]])?;
    /// search.step(|x| x[0] + x[1])?;
    /// let report = search.step(|x| x[0] + x[1])?;
    /// assert!(report.improved && report.best < 6.0);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn step<L: IntoLoss>(&mut self, mut f: impl FnMut(&[f64]) -> L) -> Result<Generation> {
        let losses = self.ask()?.iter().map(|x| f(x).into_loss()).collect::<Result<Vec<f64>>>()?;
        self.tell(&losses)
    }

    /// Everything that is needed to continue, except the domain: options, seed, generation, vectors and
    /// losses.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::discrete::genetic::{Gene, GeneticSearch};
    ///
    /// let genes = vec![Gene::Integer { low: 0, high: 9 }; 3];
    /// let mut search = GeneticSearch::default().build(genes.clone())?;
    /// search.step(|x| x.iter().sum::<f64>())?;
    /// let mut again = GeneticSearch::default().build(genes)?;
    /// again.load_state_dict(&search.state_dict())?;
    /// assert_eq!(search, again);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn state_dict(&self) -> StateDict {
        let mut dict = StateDict::new(GeneticSearch::NAME);
        let mut record = Record::new(PREFIX, &mut dict);
        let config = &self.config;
        // all 64 bits of a seed, as a signed number
        record.scalar("seed", Scalar::Int(config.seed as i64));
        record.scalar("generation", Scalar::Int(self.generation as i64));
        record.scalar("elite", Scalar::Int(config.elite as i64));
        record.scalar("offspring", Scalar::Int(config.offspring as i64));
        record.scalar("crossover", Scalar::Float(config.crossover));
        if let Some(mutation) = config.mutation {
            record.scalar("mutation", Scalar::Float(mutation));
        }
        let matrix =
            |rows: Vec<&[f64]>| StateTensor::new(&[rows.len(), self.genes.len()], &rows.concat());
        record.tensor("start", matrix(self.start.iter().map(Vec::as_slice).collect()));
        record.tensor("parents", matrix(self.parents().map(|(genes, _)| genes).collect()));
        let fitness: Vec<f64> = self.parents().map(|(_, fitness)| fitness).collect();
        record.tensor("fitness", StateTensor::new(&[fitness.len()], &fitness));
        dict
    }

    /// Continues a saved search of the same domain, with its options.
    ///
    /// # Errors
    /// [`Error::StateDict`] names the key that does not fit; [`Error::InvalidHyperparameter`] names an
    /// option or a vector that is out of range. Nothing has changed then.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::discrete::genetic::{Gene, GeneticSearch};
    ///
    /// let genes = vec![Gene::Integer { low: 0, high: 9 }; 2];
    /// let mut search = GeneticSearch::default().build_from(genes, vec![vec![4.0, 2.0]])?;
    /// let saved = search.state_dict();
    /// let before = search.ask()?;
    /// search.step(|x| x[0])?;
    /// search.load_state_dict(&saved)?;
    /// assert_eq!(search.ask()?, before);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn load_state_dict(&mut self, dict: &StateDict) -> Result<()> {
        dict.check_header(GeneticSearch::NAME)?;
        let used = RefCell::new(BTreeSet::new());
        let lookup = Lookup::new(PREFIX, dict, &used);
        let config = load_config(&lookup)?;
        config.validate()?;
        let start = self.load_vectors("start", &lookup)?;
        let vectors = self.load_vectors("parents", &lookup)?;
        let fitness: Vec<f64> = lookup.values("fitness", &[vectors.len()])?;
        let generation = load_count("generation", &lookup)?;
        if vectors.len() > config.elite {
            return Err(lookup.problem("parents", "more than `elite`"));
        }
        if (generation == 0) != vectors.is_empty() {
            return Err(lookup.problem("parents", "there are some from the first generation on"));
        }
        if fitness
            .iter()
            .zip(fitness.iter().skip(1))
            .any(|(a, b)| b < a || a.is_nan() && !b.is_nan())
        {
            return Err(lookup.problem("fitness", "not in order"));
        }
        let keys = || dict.scalars.keys().chain(dict.tensors.keys());
        if let Some(key) = keys().find(|&key| !used.borrow().contains(key)) {
            let (key, problem) = (key.clone(), "unknown key".into());
            return Err(Error::StateDict { key, problem });
        }
        let members = vectors.into_iter().zip(fitness);
        self.parents = members.map(|(genes, fitness)| Member { genes, fitness }).collect();
        (self.config, self.start, self.generation) = (config, start, generation);
        Ok(())
    }

    /// The rows of a saved matrix.
    fn load_vectors(&self, name: &'static str, lookup: &Lookup<'_>) -> Result<Vec<Vec<f64>>> {
        let tensor = lookup.tensor(name).ok_or_else(|| lookup.problem(name, "is missing"))?;
        let rows = tensor.shape.first().copied().unwrap_or(0);
        let values: Vec<f64> = lookup.values(name, &[rows, self.genes.len()])?;
        let rows: Vec<Vec<f64>> =
            values.chunks(self.genes.len().max(1)).map(<[f64]>::to_vec).collect();
        rows.iter().try_for_each(|row| check_vector(&self.genes, name, row))?;
        Ok(rows)
    }
}

/// A saved count.
fn load_count(name: &str, lookup: &Lookup<'_>) -> Result<u64> {
    lookup.scalar(name).ok_or_else(|| lookup.problem(name, "is missing"))?;
    lookup.count(name).map_err(|_| lookup.problem(name, "expected an integer >= 0"))
}

/// The saved options.
fn load_config(lookup: &Lookup<'_>) -> Result<GeneticSearch> {
    let count = |name: &str| -> Result<usize> {
        usize::try_from(load_count(name, lookup)?)
            .map_err(|_| lookup.problem(name, "too large for this machine"))
    };
    let number = |name: &str| -> Result<Option<f64>> {
        match lookup.scalar(name) {
            None => Ok(None),
            Some(_) => lookup.number(name, 0.0).map(Some),
        }
    };
    let seed = match lookup.scalar("seed") {
        Some(Scalar::Int(seed)) => *seed as u64,
        _ => return Err(lookup.problem("seed", "expected an integer")),
    };
    Ok(GeneticSearch {
        elite: count("elite")?,
        offspring: count("offspring")?,
        crossover: number("crossover")?.ok_or_else(|| lookup.problem("crossover", "is missing"))?,
        mutation: number("mutation")?,
        seed,
    })
}
