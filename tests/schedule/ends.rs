//! Every schedule, for all lengths and bases, alone, in sequence and chained: it ends on its closed form, and
//! no step leaves the range of the option.

use eigenstep::optim::Optimizer;
use eigenstep::prelude::{Adafactor, AdamW, Rule, Sgd};
use eigenstep::schedule::*;

/// Schedules that end after `n` steps, with the step of the end.
fn ending(n: u64) -> Vec<(u64, Box<dyn Schedule>)> {
    let cooldowns =
        [Cooldown::Cosine, Cooldown::OneMinusSqrt, Cooldown::Linear, Cooldown::OneMinusSquare];
    let linear = |start_factor, end_factor| Linear { start_factor, end_factor, total_iters: n };
    let mut all: Vec<Box<dyn Schedule>> = vec![
        Box::new(Constant { factor: 1.0 / 3.0, total_iters: n }),
        Box::new(Constant { factor: 0.0, total_iters: n }),
        Box::new(linear(1.0, 0.0)),
        Box::new(linear(0.3, 0.0)),
        Box::new(linear(1.0 / 3.0, 1.0)),
        Box::new(linear(1.0, 0.1)),
        Box::new(Polynomial { total_iters: n, power: 1.0 }),
        Box::new(Polynomial { total_iters: n, power: 0.9 }),
        Box::new(Polynomial { total_iters: n, power: 3.0 }),
        Box::new(Polynomial { total_iters: n, power: 0.0 }),
        Box::new(CosineAnnealing { t_max: n, eta_min: 0.0 }),
        Box::new(CosineAnnealing { t_max: n, eta_min: 1e-5 }),
        Box::new(CosineRestarts { t_0: n, t_mult: 2, eta_min: 0.0 }),
        Box::new(SwaLr { swa_lr: 0.0.into(), anneal_epochs: n, anneal: Anneal::Cos }),
        Box::new(SwaLr { swa_lr: 0.0.into(), anneal_epochs: n, anneal: Anneal::Linear }),
        Box::new(WarmupCosine { warmup: n / 3, total: n, ..Default::default() }),
        Box::new(WarmupLinear { warmup: n / 3, total: n, ..Default::default() }),
        Box::new(Rex { total: n, min_ratio: 0.0 }),
        Box::new(WarmupCosineRestarts { warmup: n / 3, total: n, cycles: 2, ..Default::default() }),
        Box::new(WarmupPolynomial { warmup: n / 3, total: n, power: 0.7, ..Default::default() }),
        Box::new(CosineCycles { t_initial: n, ..Default::default() }),
        Box::new(Piecewise { points: vec![(0, 1.0), (n, 0.0)], ..Default::default() }),
        Box::new(Step { step_size: n, gamma: 0.0 }),
        Box::new(MultiStep { milestones: vec![n], gamma: 0.1 }),
    ];
    for cooldown in cooldowns {
        let wsd = Wsd { warmup: n / 4, stable: n / 4, cooldown, ..Wsd::default() };
        all.push(Box::new(Wsd { decay: n - n / 4 - n / 4, ..wsd }));
    }
    for anneal in [Anneal::Cos, Anneal::Linear] {
        let cycle =
            OneCycle { max_lr: 0.3.into(), total_steps: n + 1, anneal, ..Default::default() };
        all.push(Box::new(OneCycle { final_div_factor: 1e30, ..cycle }));
    }
    all.into_iter().map(|schedule| (n, schedule)).collect()
}

/// Schedules without an end, the same in sequence, and chained.
fn around(n: u64) -> Vec<(u64, Box<dyn Schedule>)> {
    let linear = || Linear { start_factor: 1.0, end_factor: 0.0, total_iters: n };
    let warmup = || Linear { start_factor: 0.1, end_factor: 1.0, total_iters: 7 };
    let mut all = Vec::new();
    for (n, schedule) in ending(n) {
        // behind a warm-up
        all.push((
            n + 7,
            Box::new(Sequential::new(warmup()).then(7, schedule)) as Box<dyn Schedule>,
        ));
    }
    let up = Cyclic { step_size_up: n, cycle_momentum: false, ..Cyclic::default() };
    all.extend([
        (n, Box::new(Chained::new(linear()).and(Exponential { gamma: 0.97 })) as Box<dyn Schedule>),
        (n, Box::new(Chained::new(Step { step_size: 3, gamma: 0.7 }).and(linear()))),
        (n, Box::new(Chained::new(CosineAnnealing { t_max: n, eta_min: 0.0 }).and(warmup()))),
        (n, Box::new(Chained::new(Polynomial { total_iters: n, power: 2.0 }).and(warmup()))),
        (n, Box::new(Chained::new(Multiplicative::new(|_| 0.99)).and(linear()))),
        (2 * n, Box::new(up)),
        (n, Box::new(InverseSqrt { warmup: n, ..InverseSqrt::default() })),
        (n, Box::new(Noam { d_model: 64, warmup: n })),
        (n, Box::new(Groupwise::new(linear()))),
        (n, Box::new(Lambda::new(move |e| 1.0 - (e.min(n)) as f64 / n as f64))),
    ]);
    all
}

fn lengths() -> impl Iterator<Item = u64> {
    (1..=60).chain([77, 100, 128, 300, 999, 4096])
}

const BASES: [f64; 6] = [1e-3, 3e-4, 0.1, 1.0, 0.7, 1e-12];

#[test]
fn rates_end_on_the_closed_form() {
    for n in lengths() {
        for base in BASES {
            for (k, (end, schedule)) in ending(n).into_iter().chain(around(n)).enumerate() {
                let mut opt = Sgd { lr: base, ..Sgd::default() }.build::<f32>().unwrap();
                // one-cycle moves momentum, which plain descent has, too
                let mut scheduler = LrScheduler::new(schedule, &mut opt).unwrap();
                let name = format!("{scheduler:?} of length {n}, number {k}");
                for _ in 0..end {
                    scheduler.step(&mut opt).unwrap_or_else(|error| panic!("{name}: {error}"));
                }
                let at = At { group: 0, epoch: end as f64, base_lr: base, lr: f64::NAN };
                if let Some(expected) = scheduler.schedule().closed_form(at) {
                    assert_eq!(opt.lr(0).to_bits(), expected.to_bits(), "{name}: {expected}");
                } else if name.contains("Linear") && n > 7 || name.contains("SwaLr") {
                    assert_eq!(opt.lr(0), 0.0, "{name}");
                }
                let beyond = if name.contains("OneCycle") { 0 } else { 3 };
                for _ in 0..beyond {
                    scheduler.step(&mut opt).unwrap_or_else(|error| panic!("{name}: {error}"));
                }
            }
        }
    }
}

/// Half-open, closed and one-sided ranges, with bases next to their ends.
#[test]
fn options_stay_in_their_range() {
    for n in lengths().filter(|n| n % 3 == 1) {
        for (option, base) in [
            ("weight_decay", 0.1),
            ("betas.0", 0.9),
            ("betas.1", 1.0f64.next_down()),
            ("betas.1", 0.9999999),
        ] {
            for (end, schedule) in ending(n).into_iter().chain(around(n)) {
                let mut opt = AdamW::default().build::<f32>().unwrap();
                opt.set_option(0, option, base).unwrap();
                let mut scheduler = OptionScheduler::new(option, schedule, &mut opt).unwrap();
                for _ in 0..end {
                    let result = scheduler.step(&mut opt);
                    result.unwrap_or_else(|error| panic!("{scheduler:?} {base}: {error}"));
                }
            }
        }
        for (end, schedule) in ending(n) {
            let mut opt = Adafactor::default().build::<f32>().unwrap();
            opt.set_option(0, "beta2_cap", 1.0).unwrap();
            let mut scheduler = OptionScheduler::new("beta2_cap", schedule, &mut opt).unwrap();
            (0..end).for_each(|_| scheduler.step(&mut opt).unwrap());
        }
    }
}

/// From a fraction of an epoch on, too; and waves so long that their ends are flat.
#[test]
fn fractions_and_long_waves() {
    for build in [
        (|| Box::new(Constant { factor: 0.25, total_iters: 3 })) as fn() -> Box<dyn Schedule>,
        || Box::new(Linear { start_factor: 1.0, end_factor: 0.0, total_iters: 3 }),
        || Box::new(Polynomial { total_iters: 3, power: 2.0 }),
    ] {
        let mut opt = Sgd { lr: 0.1, ..Sgd::default() }.build::<f32>().unwrap();
        let mut scheduler = LrScheduler::new(build(), &mut opt).unwrap();
        scheduler.step_to(0.3, &mut opt).unwrap();
        (0..5).for_each(|_| scheduler.step(&mut opt).unwrap());
        let at = At { group: 0, epoch: 5.3, base_lr: 0.1, lr: f64::NAN };
        assert_eq!(Some(opt.lr(0)), scheduler.schedule().closed_form(at), "{scheduler:?}");
    }
    for t_max in [1_000_000, 1_000_000_000, 1 << 40] {
        let mut opt = Sgd { lr: 0.1, ..Sgd::default() }.build::<f32>().unwrap();
        let cosine = CosineAnnealing { t_max, eta_min: 0.0 };
        let mut scheduler = LrScheduler::new(cosine, &mut opt).unwrap();
        scheduler.step_to((t_max - 3) as f64, &mut opt).unwrap();
        for _ in 0..9 {
            scheduler.step(&mut opt).unwrap();
            assert!(opt.lr(0) < 1e-10, "{scheduler:?}");
        }
    }
    // and a whole wave more: no higher than it began
    let mut opt = Sgd { lr: 0.1, ..Sgd::default() }.build::<f32>().unwrap();
    let cosine = CosineAnnealing { t_max: 20_000, eta_min: 0.0 };
    let mut scheduler = LrScheduler::new(cosine, &mut opt).unwrap();
    (0..40_000).for_each(|_| scheduler.step(&mut opt).unwrap());
    assert!((opt.lr(0) - 0.1).abs() < 1e-12, "{}", opt.lr(0));
}
