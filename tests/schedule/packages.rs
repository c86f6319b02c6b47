//! Schedules that transformers, timm and optax have, beside the golden numbers.

use eigenstep::Error;
use eigenstep::prelude::*;
use eigenstep::schedule::*;

fn factors(schedule: &dyn Schedule, steps: usize) -> Vec<f64> {
    curve(schedule, 1.0, steps)
}

#[test]
fn one_hard_restart_is_the_plain_cosine() {
    let (warmup, total, min_ratio) = (7, 60, 0.2);
    let waves = WarmupCosineRestarts { warmup, total, min_ratio, cycles: 1, warmup_from_one: true };
    let plain = WarmupCosine { warmup, total, min_ratio, warmup_from_one: true };
    assert_eq!(factors(&waves, 80), factors(&plain, 80));
    let line = WarmupPolynomial { warmup, total, lr_end: 0.0, power: 1.0, warmup_from_one: true };
    let plain = WarmupLinear { warmup, total, min_ratio: 0.0, warmup_from_one: true };
    for (a, b) in factors(&line, 80).into_iter().zip(factors(&plain, 80)) {
        assert!((a - b).abs() < 1e-15);
    }
}

/// Every wave begins at its height, at the step where the geometric sum of the lengths says, however far away.
#[test]
fn waves_begin_where_the_ones_before_end() {
    for cycle_mul in [1.0, 1.25, 1.5, 2.0, 3.0] {
        let waves = CosineCycles {
            t_initial: 16,
            cycle_mul,
            cycle_decay: 0.9,
            cycle_limit: 1 << 53,
            ..CosineCycles::default()
        };
        let rate = |epoch: f64| waves.next(At { group: 0, epoch, base_lr: 1.0, lr: 1.0 });
        let (mut begin, mut length, mut height) = (0.0, 16.0, 1.0);
        for _ in 0..12 {
            let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{cycle_mul}: {a}, not {b}");
            near(rate(begin), height);
            near(rate(begin + length / 2.0), height / 2.0);
            begin += length;
            length *= cycle_mul;
            height *= 0.9;
        }
        // far away, and at once
        assert!((0.0..=1.0).contains(&rate(1e15)));
    }
}

#[test]
fn noise_is_bounded_repeatable_and_leaves_the_next_step_alone() {
    let plain = WarmupCosine { total: 4000, ..WarmupCosine::default() };
    for uniform in [false, true] {
        let noise = RateNoise { pct: 0.5, from: 10, to: 3000, uniform, seed: 3 };
        let noisy = Noisy::new(plain.clone(), noise.clone());
        let (found, expected) = (factors(&noisy, 3500), factors(&plain, 3500));
        assert_eq!(found, factors(&noisy, 3500));
        let noise_of = |i: usize| found[i] / expected[i] - 1.0;
        let drawn: Vec<f64> = (10..3000).map(noise_of).collect();
        assert!(drawn.iter().all(|x| x.abs() <= 0.5 + 1e-12));
        assert!((0..10).chain(3000..3500).all(|i| noise_of(i) == 0.0));
        let moment = |k: i32| drawn.iter().map(|x| x.powi(k)).sum::<f64>() / drawn.len() as f64;
        // variance a²/3; of a normal number within ±a: 1 − 2aφ(a)/(2Φ(a) − 1)
        let variance = if uniform { 0.25 / 3.0 } else { 0.080_59 };
        assert!(moment(1).abs() < 0.02, "{}", moment(1));
        assert!((moment(2) - variance).abs() < 0.004, "{} {variance}", moment(2));
        let other = Noisy::new(plain.clone(), RateNoise { seed: 4, ..noise });
        assert_ne!(factors(&other, 20), factors(&noisy, 20));
    }
}

#[test]
fn curves_go_through_their_points() {
    for interpolation in [Interpolation::Linear, Interpolation::Cosine, Interpolation::Step] {
        let points = vec![(3, 0.5), (4, 1.0), (11, 0.25), (20, 0.0)];
        let curve = Piecewise { points: points.clone(), interpolation };
        let found = factors(&curve, 30);
        for (step, factor) in points {
            assert!((found[step as usize] - factor).abs() < 1e-15);
        }
        assert_eq!((found[0], found[29]), (0.5, 0.0));
    }
    assert_eq!(factors(&Piecewise::default(), 3), [1.0; 3]);
}

#[test]
fn what_has_no_meaning_is_refused() {
    let says = |schedule: Box<dyn Schedule>, text: &str| {
        let mut opt = Sgd { lr: 0.1, ..Sgd::default() }.build::<f32>().unwrap();
        let error = LrScheduler::new(schedule, &mut opt).unwrap_err();
        assert!(matches!(error, Error::InvalidHyperparameter { .. }));
        assert_eq!(error.to_string(), text);
        assert_eq!(opt.lr(0), 0.1);
    };
    let curve = |points| Box::new(Piecewise { points, ..Piecewise::default() });
    let order = "Piecewise: `points` must be steps in ascending order, got";
    says(curve(vec![(5, 1.0), (5, 0.5)]), &format!("{order} 5 behind 5"));
    says(curve(vec![(5, 1.0), (2, 0.5)]), &format!("{order} 2 behind 5"));
    let sign = "Piecewise: `points` must be factors that are finite and >= 0, got";
    says(curve(vec![(5, -1.0)]), &format!("{sign} -1"));
    says(curve(vec![(5, f64::NAN)]), &format!("{sign} NaN"));
    let noise = RateNoise::default();
    says(
        Box::new(Noisy::new(Multiplicative::new(|_| 0.5), noise.clone())),
        "Noisy: `schedule` must be a schedule with a closed form, got Multiplicative",
    );
    // in one group, or in a later part
    let groups = Groupwise::new(Exponential { gamma: 0.5 }).and(Multiplicative::new(|_| 0.5));
    let later = Sequential::new(CosineAnnealing { t_max: 3, eta_min: 0.5 })
        .then(3, Chained::new(Exponential { gamma: 0.5 }));
    for (schedule, name) in
        [(Box::new(groups) as Box<dyn Schedule>, "Groupwise"), (Box::new(later), "Sequential")]
    {
        let text = format!("Noisy: `schedule` must be a schedule with a closed form, got {name}");
        let opt = Sgd { lr: 0.1, ..Sgd::default() }.build::<f32>().unwrap();
        let mut opt = match name {
            "Groupwise" => opt.with_group(Select::name("b").may_be_empty(), |_| {}).unwrap(),
            _ => opt,
        };
        let error = LrScheduler::new(Noisy::new(schedule, noise.clone()), &mut opt).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    let never = RateNoise { from: 50, to: 10, ..noise.clone() };
    let text = "Noisy: `to` must be more than `from`, 50, got 10";
    says(Box::new(Noisy::new(Rex::default(), never)), text);
    let wrong = RateNoise { pct: 1.5, ..noise };
    let text = "Noisy: `pct` must be in [0, 1], got 1.5";
    says(Box::new(Noisy::new(Rex::default(), wrong)), text);
}
