//! The plots, as SVG.

use crate::Seeds;
use crate::common::compare::Spread;
use crate::common::plot::{Curve, LEFT, Svg, TOP, WIDTH, colour, losses, tick_step};

/// The loss over the training set against the epoch, averaged over the seeds.
pub fn loss(compared: &[Seeds]) -> String {
    let means: Vec<Vec<f64>> = compared.iter().map(Seeds::mean_losses).collect();
    let curves = compared.iter().zip(&means);
    let curves: Vec<Curve<'_>> =
        curves.map(|(seeds, losses)| Curve { name: seeds.method, losses }).collect();
    let subtitle = "mean cross-entropy over all training images, geometric mean over the seeds";
    losses("Training loss", subtitle, &curves)
}

/// Test accuracy against bytes of state; bars reach one standard deviation up and down.
pub fn accuracy(compared: &[Seeds]) -> String {
    const HEIGHT: f64 = 460.0;
    const RIGHT: f64 = WIDTH - 270.0;
    const BOTTOM: f64 = HEIGHT - 60.0;
    let subtitle = "mean over the seeds; bars: one standard deviation up and down";
    let mut svg = Svg::new(HEIGHT, "Test accuracy over bytes of state", subtitle);
    let points: Vec<(f64, Spread)> = compared
        .iter()
        .map(|seeds| {
            let accuracy = seeds.spread(|run| 100.0 * run.test_accuracy);
            (seeds.state_bytes() as f64 / 1e6, accuracy)
        })
        .collect();
    let ends = |sign: f64| points.iter().map(move |(_, a)| a.mean + sign * a.deviation);
    let (low, high) =
        (ends(-1.0).fold(f64::INFINITY, f64::min), ends(1.0).fold(f64::NEG_INFINITY, f64::max));
    let step = tick_step((high - low).max(0.1), 6.0);
    let (low, high) = (step * (low / step).floor(), step * (high / step).ceil());
    let most = points.iter().map(|(bytes, _)| *bytes).fold(0.0, f64::max);
    let bytes_step = tick_step(most, 8.0);
    let end = bytes_step * (most / bytes_step * 1.02).ceil();
    let x = |bytes: f64| LEFT + (RIGHT - LEFT) * bytes / end;
    let y = |accuracy: f64| BOTTOM - (BOTTOM - TOP) * (accuracy - low) / (high - low);

    for tick in 0..=((high - low) / step).round() as usize {
        let accuracy = low + step * tick as f64;
        svg.line((LEFT, y(accuracy)), (RIGHT, y(accuracy)), r#"class="grid""#);
        let label = format!("{accuracy:.*}", usize::from(step < 1.0) + usize::from(step < 0.1));
        svg.text(LEFT - 8.0, y(accuracy) + 4.5, "end", "", &label);
    }
    for tick in 0..=(end / bytes_step).round() as usize {
        let bytes = bytes_step * tick as f64;
        svg.line((x(bytes), BOTTOM), (x(bytes), BOTTOM + 5.0), r#"class="axis""#);
        let label = format!("{bytes:.*}", usize::from(bytes_step < 1.0));
        svg.text(x(bytes), BOTTOM + 21.0, "middle", "", &label);
    }
    svg.line((LEFT, TOP), (LEFT, BOTTOM), r#"class="axis""#);
    svg.line((LEFT, BOTTOM), (RIGHT, BOTTOM), r#"class="axis""#);
    svg.text((LEFT + RIGHT) / 2.0, BOTTOM + 46.0, "middle", "", "megabytes (1 000 000 bytes)");
    let middle = (TOP + BOTTOM) / 2.0;
    let turned = format!(r#"transform="rotate(-90 20 {middle})""#);
    svg.text(20.0, middle, "middle", &turned, "test accuracy, %");

    for (i, ((bytes, accuracy), seeds)) in points.iter().zip(compared).enumerate() {
        let style = format!(r#"stroke="{}" stroke-width="2""#, colour(i));
        let (top, bottom) =
            (y(accuracy.mean + accuracy.deviation), y(accuracy.mean - accuracy.deviation));
        svg.line((x(*bytes), top), (x(*bytes), bottom), &style);
        let dot = |x: f64, y: f64| {
            format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="5" fill="{}"/>"#, colour(i))
        };
        svg.push(dot(x(*bytes), y(accuracy.mean)));
        let row = TOP + 12.0 + 24.0 * i as f64;
        svg.push(dot(RIGHT + 30.0, row - 4.5));
        svg.text(RIGHT + 44.0, row, "start", "", seeds.method);
    }
    svg.finish()
}
