//! Draws every schedule of the crate, as small panels of one plot.
//!
//! ```text
//! cargo run --release --example schedules -- --out docs/img
//! ```
//!
//! Without `--out` the plot is written to `target/schedules`.

#[path = "common/mod.rs"]
mod common;

use common::Problem;
use common::plot::{Svg, WIDTH, colour};
use eigenstep::schedule::*;
use std::fmt::Write;
use std::path::Path;

/// Steps that are drawn.
const STEPS: usize = 101;
const COLUMNS: usize = 5;
const PANEL: f64 = 156.0;
const GAP: f64 = 20.0;
const HEIGHT: f64 = 96.0;
const ROW: f64 = 140.0;

fn main() -> Result<(), Problem> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => "target/schedules".to_owned(),
        ["--out", folder] => folder.to_owned(),
        _ => return Err(Problem("usage: schedules [--out FOLDER]".into())),
    };
    common::make_folder(Path::new(&folder))?;
    common::write_plots(Path::new(&folder), &[("schedules.svg", draw(&all()))])
}

/// Every schedule, with options that show its form in 100 steps.
fn all() -> Vec<Box<dyn Schedule>> {
    let (warmup, total) = (10, 100);
    let ramp = Linear { start_factor: 0.1, end_factor: 1.0, total_iters: 20 };
    vec![
        Box::new(Constant { factor: 0.3, total_iters: 30 }),
        Box::new(Linear { start_factor: 0.2, end_factor: 1.0, total_iters: 40 }),
        Box::new(Polynomial { total_iters: total, power: 2.0 }),
        Box::new(Step { step_size: 25, gamma: 0.5 }),
        Box::new(MultiStep { milestones: vec![30, 80], gamma: 0.3 }),
        Box::new(Exponential { gamma: 0.97 }),
        Box::new(Lambda::new(|e| 1.0 / (1.0 + 0.05 * e as f64))),
        Box::new(Multiplicative::new(|e| if e % 20 == 0 { 0.6 } else { 1.0 })),
        Box::new(CosineAnnealing { t_max: total, eta_min: 0.0 }),
        Box::new(CosineRestarts { t_0: 15, t_mult: 2, eta_min: 0.0 }),
        Box::new(CosineCycles {
            t_initial: 20,
            cycle_mul: 1.5,
            cycle_decay: 0.7,
            cycle_limit: 3,
            ..CosineCycles::default()
        }),
        Box::new(WarmupCosine { warmup, total, ..WarmupCosine::default() }),
        Box::new(WarmupCosineRestarts {
            warmup,
            total,
            cycles: 3,
            ..WarmupCosineRestarts::default()
        }),
        Box::new(WarmupLinear { warmup, total, ..WarmupLinear::default() }),
        Box::new(WarmupPolynomial { warmup, total, power: 2.0, ..WarmupPolynomial::default() }),
        Box::new(Wsd { warmup, stable: 60, decay: 30, ..Wsd::default() }),
        Box::new(InverseSqrt { warmup, ..InverseSqrt::default() }),
        Box::new(Noam { d_model: 1, warmup }),
        Box::new(Rex { total, min_ratio: 0.0 }),
        Box::new(Cyclic {
            base_lr: 0.1.into(),
            max_lr: 1.0.into(),
            step_size_up: 20,
            ..Cyclic::default()
        }),
        Box::new(OneCycle { max_lr: 1.0.into(), total_steps: 101, ..OneCycle::default() }),
        Box::new(SwaLr { swa_lr: 0.3.into(), anneal_epochs: 40, ..SwaLr::default() }),
        Box::new(Piecewise {
            points: vec![(0, 0.1), (20, 1.0), (50, 0.6), (100, 0.0)],
            interpolation: Interpolation::Linear,
        }),
        Box::new(Noisy::new(
            CosineAnnealing { t_max: total, eta_min: 0.0 },
            RateNoise { pct: 0.3, from: 40, ..RateNoise::default() },
        )),
        Box::new(Sequential::new(ramp.clone()).then(20, Step { step_size: 30, gamma: 0.4 })),
        Box::new(Chained::new(ramp).and(Exponential { gamma: 0.98 })),
    ]
}

/// The panels: rates over steps, from 0 to the highest one.
fn draw(schedules: &[Box<dyn Schedule>]) -> String {
    let rows = schedules.len().div_ceil(COLUMNS);
    let subtitle = "rate over 100 steps; in every panel the axis begins at 0";
    let mut svg = Svg::new(80.0 + ROW * rows as f64, "Schedules", subtitle);
    let left = (WIDTH - COLUMNS as f64 * PANEL - (COLUMNS - 1) as f64 * GAP) / 2.0;
    for (i, schedule) in schedules.iter().enumerate() {
        let x0 = left + (i % COLUMNS) as f64 * (PANEL + GAP);
        let y0 = 84.0 + (i / COLUMNS) as f64 * ROW;
        let rates = curve(&**schedule, 1.0, STEPS);
        let highest = rates.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let mut points = String::new();
        for (step, rate) in rates.iter().enumerate() {
            let x = x0 + PANEL * step as f64 / (STEPS - 1) as f64;
            // writing to a string cannot fail
            let _ = write!(points, "{x:.1},{:.1} ", y0 + HEIGHT * (1.0 - rate / highest));
        }
        svg.text(x0, y0 - 8.0, "start", "", schedule.name());
        svg.line((x0, y0), (x0, y0 + HEIGHT), r#"class="axis""#);
        svg.line((x0, y0 + HEIGHT), (x0 + PANEL, y0 + HEIGHT), r#"class="axis""#);
        let stroke = colour(0);
        let points = points.trim_end();
        svg.push(format!(r#"<polyline class="curve" stroke="{stroke}" points="{points}"/>"#));
    }
    svg.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schedule_is_drawn() {
        let drawing = draw(&all());
        assert_eq!(drawing.matches("<polyline").count(), all().len());
        assert!(!drawing.contains("NaN") && !drawing.contains("inf,"));
    }
}
