//! The genetic search: what never happens, what it finds, saving, and what is refused.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use eigenstep_instances as _;

use eigenstep::Error;
use eigenstep::discrete::genetic::{Gene, GeneticSearch, Population, child, survivors};
use eigenstep::state::{Scalar, StateDict, StateTensor};
use proptest::prelude::*;

fn search(seed: u64) -> GeneticSearch {
    GeneticSearch { elite: 3, offspring: 12, seed, ..GeneticSearch::default() }
}

fn mixed() -> Vec<Gene> {
    vec![
        Gene::Integer { low: -3, high: 4 },
        Gene::Real { low: -1.0, high: 2.0, sigma: 0.5 },
        Gene::Integer { low: 7, high: 7 },
        Gene::Real { low: -1.7e308, high: 1.7e308, sigma: 1e308 },
        Gene::Integer { low: -(1 << 53), high: 1 << 53 },
        Gene::Real { low: 0.0, high: 0.0, sigma: 0.0 },
    ]
}

/// A loss with ties, NaN and infinities in it.
fn loss(x: &[f64]) -> f64 {
    let size = x[0] * x[0] + (x[1] - 1.0).abs().floor();
    if x[0] == 2.0 {
        f64::NAN
    } else if x[0] == -3.0 {
        f64::INFINITY
    } else {
        size
    }
}

proptest! {
    #[test]
    fn the_best_never_gets_worse_and_children_stay_in_the_domain(
        seed in any::<u64>(), crossover in 0.0..=1.0f64, rate in 0.0..=1.0f64,
    ) {
        let config = GeneticSearch { crossover, mutation: Some(rate), ..search(seed) };
        let mut population = config.build(mixed()).unwrap();
        let mut best = f64::INFINITY;
        for generation in 0..8 {
            let candidates = population.ask().unwrap();
            prop_assert_eq!(candidates.len(), 12);
            for x in &candidates {
                prop_assert!(mixed().iter().zip(x).all(|(gene, x)| gene.contains(*x)), "{x:?}");
            }
            let losses: Vec<f64> = candidates.iter().map(|x| loss(x)).collect();
            let report = population.tell(&losses).unwrap();
            prop_assert_eq!(report.generation, generation);
            prop_assert_eq!(report.nan, losses.iter().filter(|loss| loss.is_nan()).count());
            // it may begin with nothing but NaN
            prop_assert!(report.best <= best || report.best.is_nan() && best == f64::INFINITY);
            prop_assert!(!report.improved || report.accepted > 0);
            best = if report.best.is_nan() { best } else { report.best };
            let losses: Vec<f64> = population.parents().map(|(_, loss)| loss).collect();
            prop_assert_eq!(survivors(&losses, 9), (0..losses.len()).collect::<Vec<_>>());
            prop_assert!(losses.len() <= 3);
        }
    }

    #[test]
    fn children_have_nothing_that_their_parents_and_mutations_lack(
        genes in prop::collection::vec((any::<f64>(), any::<f64>(), any::<bool>(), any::<bool>(), any::<f64>()), 0..9),
    ) {
        let a: Vec<f64> = genes.iter().map(|g| g.0).collect();
        let b: Vec<f64> = genes.iter().map(|g| g.1).collect();
        let values: Vec<f64> = genes.iter().map(|g| g.4).collect();
        let masks: [Vec<bool>; 2] =
            [genes.iter().map(|g| g.2).collect(), genes.iter().map(|g| g.3).collect()];
        let born = child(&a, &b, &masks[0], &masks[1], &values).unwrap();
        for (found, (a, b, cross, mutate, value)) in born.iter().zip(&genes) {
            let expected = if *mutate { value } else if *cross { b } else { a };
            prop_assert_eq!(found.to_bits(), expected.to_bits());
        }
        let none = vec![false; a.len()];
        prop_assert_eq!(child(&a, &b, &none, &none, &values).unwrap(), a);
    }
}

/// Children without crossover and mutation are copies of parents.
#[test]
fn nothing_changes_without_operators() {
    let config = GeneticSearch { crossover: 0.0, mutation: Some(0.0), ..search(5) };
    let mut population = config.build(mixed()).unwrap();
    population.step(|x| x[1]).unwrap();
    let parents: Vec<Vec<f64>> = population.parents().map(|(x, _)| x.to_vec()).collect();
    let children = population.ask().unwrap();
    assert!(children.iter().all(|child| parents.contains(child)));
    // every parent has some
    assert!(parents.iter().all(|parent| children.contains(parent)));
    // incumbents win against their own copies, and against whatever is no better
    let best = population.best().map(|(x, _)| x.to_vec());
    assert!(!population.step(|x| x[1]).unwrap().improved);
    assert_eq!(population.best().map(|(x, _)| x.to_vec()), best);
    let worst = population.parents().last().map_or(0.0, |(_, loss)| loss);
    assert_eq!(population.step(|_| worst).unwrap().accepted, 0);
}

#[test]
fn rates_are_what_they_say() {
    let genes = vec![Gene::Integer { low: 0, high: 999_999 }; 100];
    let config = GeneticSearch { elite: 2, offspring: 400, ..GeneticSearch::default() };
    let mut population = config.build_from(genes, vec![vec![1.0; 100], vec![2.0; 100]]).unwrap();
    population.step(|x| x[0]).unwrap();
    let (mut mutated, mut minority) = (0.0, 0.0);
    for x in population.ask().unwrap() {
        mutated += x.iter().filter(|&&x| x > 2.0).count() as f64;
        let ones = x.iter().filter(|&&x| x == 1.0).count();
        minority += ones.min(x.iter().filter(|&&x| x == 2.0).count()) as f64;
    }
    // one gene in a child on average; of two different parents 30 genes are the second one's
    assert!((mutated / 400.0 - 1.0).abs() < 0.25, "{mutated}");
    assert!((minority / 200.0 - 30.0).abs() < 4.0, "{minority}");
}

#[test]
fn draws_cover_the_domain() {
    let genes =
        vec![Gene::Integer { low: -2, high: 2 }, Gene::Real { low: 1.0, high: 3.0, sigma: 0.0 }];
    let config = GeneticSearch { offspring: 5000, ..GeneticSearch::default() };
    let first = config.build(genes).unwrap().ask().unwrap();
    for value in -2..=2 {
        let count = first.iter().filter(|x| x[0] == f64::from(value)).count();
        assert!((850..1150).contains(&count), "{value}: {count}");
    }
    let mean = first.iter().map(|x| x[1]).sum::<f64>() / 5000.0;
    assert!((mean - 2.0).abs() < 0.05, "{mean}");
}

#[test]
fn a_seed_is_a_run_and_another_seed_another() {
    let run = |seed| {
        let mut population = search(seed).build(mixed()).unwrap();
        for _ in 0..5 {
            assert_eq!(population.ask().unwrap(), population.ask().unwrap());
            population.step(loss).unwrap();
        }
        population
    };
    assert_eq!(run(1).state_dict(), run(1).state_dict());
    assert_ne!(run(1).ask().unwrap(), run(2).ask().unwrap());
    // both halves of a seed count
    assert_ne!(run(1).ask().unwrap(), run(1 | 1 << 40).ask().unwrap());
}

#[test]
fn a_loaded_search_goes_on_as_if_nothing_had_happened() {
    let fresh = || search(u64::MAX).build_from(mixed(), vec![vec![0.0, 0.0, 7.0, 0.0, 0.0, 0.0]]);
    for before in [0, 1, 4] {
        let mut straight = fresh().unwrap();
        for _ in 0..before {
            straight.step(|x| x[1]).unwrap();
        }
        // other options, which the dict replaces
        let mut loaded = GeneticSearch::default().build(mixed()).unwrap();
        loaded.load_state_dict(&straight.state_dict()).unwrap();
        for _ in 0..4 {
            assert_eq!(straight.step(|x| x[1]).unwrap(), loaded.step(|x| x[1]).unwrap());
        }
        assert_eq!(straight, loaded);
    }
}

#[test]
fn a_dict_that_does_not_fit_changes_nothing() {
    let mut population = search(1).build(mixed()).unwrap();
    for _ in 0..3 {
        population.step(|x| x[1]).unwrap();
    }
    let (good, before) = (population.state_dict(), population.clone());
    let mut refused = |change: &dyn Fn(&mut StateDict), expected: &str| {
        let mut dict = good.clone();
        change(&mut dict);
        let message = population.load_state_dict(&dict).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert_eq!(population, before);
    };
    let set = |key: &'static str, scalar: Scalar| {
        move |dict: &mut StateDict| {
            dict.scalars.insert(format!("search.{key}"), scalar.clone());
        }
    };
    refused(&|dict| dict.optimizer = "SGD".into(), "`optimizer`");
    refused(&|dict| dict.version = 9, "`version`");
    refused(&set("surprise", Scalar::Bool(true)), "surprise");
    refused(&set("elite", Scalar::Int(0)), "`elite`");
    refused(&set("elite", Scalar::Int(2)), "`search.parents`");
    refused(&set("offspring", Scalar::Int(1 << 24)), "`offspring`");
    refused(&set("crossover", Scalar::Float(1.5)), "`crossover`");
    refused(&set("mutation", Scalar::Float(f64::NAN)), "`mutation`");
    refused(&set("generation", Scalar::Int(-1)), "`search.generation`");
    refused(&set("generation", Scalar::Int(0)), "`search.parents`");
    refused(&set("seed", Scalar::Float(1.0)), "`search.seed`");
    for key in ["seed", "generation", "elite", "offspring", "crossover"] {
        let key = format!("search.{key}");
        refused(&|dict| drop(dict.scalars.remove(&key)), &key);
    }
    for key in ["start", "parents", "fitness"] {
        let key = format!("search.{key}");
        refused(&|dict| drop(dict.tensors.remove(&key)), &key);
        let narrow = StateTensor::new(&[3, 1], &[0.0f64; 3]);
        refused(&|dict| drop(dict.tensors.insert(key.clone(), narrow.clone())), &key);
        let codes = StateTensor::codes(&[1, 2]);
        refused(&|dict| drop(dict.tensors.insert(key.clone(), codes.clone())), &key);
    }
    let outside = StateTensor::new(&[3, 6], &[99.0f64; 18]);
    refused(
        &|dict| drop(dict.tensors.insert("search.parents".into(), outside.clone())),
        "`parents`",
    );
    let disorder = StateTensor::new(&[3], &[3.0f64, 2.0, 1.0]);
    refused(&|dict| drop(dict.tensors.insert("search.fitness".into(), disorder.clone())), "order");
}

#[test]
fn ranking() {
    let nan = f64::NAN;
    assert_eq!(survivors(&[nan, 1.0, f64::INFINITY, 1.0, f64::NEG_INFINITY], 5), [4, 1, 3, 2, 0]);
    assert_eq!(survivors(&[0.0, -0.0, 0.0], 2), [0, 1]);
    assert_eq!(survivors(&[], 3), [0usize; 0]);
    assert_eq!(survivors(&[1.0], 0), [0usize; 0]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let gene = Gene::Integer { low: 0, high: 1 };
    let field = |outcome: Result<Population, Error>, expected: &str| match outcome.unwrap_err() {
        Error::InvalidHyperparameter { field, .. } => assert_eq!(field, expected),
        Error::LengthMismatch { name, .. } => assert_eq!(name, expected),
        error => panic!("{error}"),
    };
    let ok = GeneticSearch::default;
    field(GeneticSearch { elite: 0, ..ok() }.build(vec![gene]), "elite");
    field(GeneticSearch { offspring: 0, ..ok() }.build(vec![gene]), "offspring");
    field(GeneticSearch { offspring: 1 << 24, ..ok() }.build(vec![gene]), "offspring");
    field(GeneticSearch { crossover: -0.1, ..ok() }.build(vec![gene]), "crossover");
    field(GeneticSearch { crossover: f64::NAN, ..ok() }.build(vec![gene]), "crossover");
    field(GeneticSearch { mutation: Some(1.1), ..ok() }.build(vec![gene]), "mutation");
    field(ok().build(vec![]), "genes");
    field(ok().build(vec![Gene::Integer { low: 2, high: 1 }]), "high");
    field(ok().build(vec![Gene::Integer { low: i64::MIN, high: 1 }]), "low");
    field(ok().build(vec![Gene::Integer { low: 0, high: i64::MAX }]), "high");
    field(ok().build(vec![Gene::Real { low: f64::NAN, high: 1.0, sigma: 1.0 }]), "low");
    field(ok().build(vec![Gene::Real { low: 2.0, high: 1.0, sigma: 1.0 }]), "high");
    field(ok().build(vec![Gene::Real { low: 0.0, high: f64::INFINITY, sigma: 1.0 }]), "high");
    field(ok().build(vec![Gene::Real { low: 0.0, high: 1.0, sigma: f64::NAN }]), "sigma");
    field(ok().build_from(vec![gene], vec![vec![0.5]]), "start");
    field(ok().build_from(vec![gene], vec![vec![0.0, 0.0]]), "start");
    let mut population = search(0).build(vec![gene]).unwrap();
    let before = population.clone();
    let error = population.tell(&[1.0]).unwrap_err();
    assert!(matches!(&error, Error::LengthMismatch { name, .. } if name == "fitness"), "{error}");
    let mut calls = 0;
    let failing = population.step(|_| {
        calls += 1;
        if calls < 3 { Ok(1.0) } else { Err("out of memory") }
    });
    assert!(matches!(failing, Err(Error::Closure(_))));
    assert_eq!((&population, calls), (&before, 3));
    let masks = [false; 2];
    assert!(child(&[1.0; 2], &[1.0], &masks, &masks, &[0.0; 2]).is_err());
    assert!(child(&[1.0; 2], &[1.0; 2], &masks[..1], &masks, &[0.0; 2]).is_err());
    assert!(child(&[1.0; 2], &[1.0; 2], &masks, &masks[..1], &[0.0; 2]).is_err());
    assert!(child(&[1.0; 2], &[1.0; 2], &masks, &masks, &[0.0; 3]).is_err());
}

/// Random numbers end with 32 bits of generations; they never repeat.
#[test]
fn generations_end_before_random_numbers_repeat() {
    let mut population = search(1).build(mixed()).unwrap();
    population.step(|x| x[1]).unwrap();
    let mut dict = population.state_dict();
    dict.scalars.insert("search.generation".into(), Scalar::Int(1 << 32));
    population.load_state_dict(&dict).unwrap();
    assert!(matches!(population.ask(), Err(Error::OutOfOrder { .. })));
    assert!(population.tell(&[0.0; 12]).is_err());
}
