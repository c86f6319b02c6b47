//! The plots, as SVG.

use crate::common::plot::{Curve, LEFT, Svg, TOP, WIDTH, losses, tick_step};
use crate::train::Run;

/// The loss over the training set against the epoch, on a logarithmic scale.
pub fn loss(runs: &[Run]) -> String {
    let curves = runs.iter().map(|run| Curve { name: run.method, losses: &run.losses });
    let curves: Vec<Curve<'_>> = curves.collect();
    losses("Training loss", "mean cross-entropy over all training images", &curves)
}

/// The bytes of state, as bars.
pub fn bytes(runs: &[Run]) -> String {
    const BARS: f64 = LEFT + 100.0;
    const RIGHT: f64 = WIDTH - 250.0;
    const ROW: f64 = 34.0;
    let bottom = TOP + ROW * runs.len() as f64 + 8.0;
    let params = runs.first().map_or(0, |run| run.params);
    let subtitle = format!(
        "of a network of {params} parameters; blue: full precision, orange: 16, 8 or 4 bits"
    );
    let mut svg = Svg::new(bottom + 60.0, "Optimizer state", &subtitle);
    let most = runs.iter().map(|run| run.state_bytes).max().unwrap_or(0).max(1024) as f64 / 1000.0;
    let step = tick_step(most, 8.0);
    let end = step * (most / step).ceil();
    let x = |kilobytes: f64| BARS + (RIGHT - BARS) * kilobytes / end;

    let mut tick = 0.0;
    while tick <= end + 0.5 * step {
        svg.line((x(tick), TOP), (x(tick), bottom), r#"class="grid""#);
        svg.text(x(tick), bottom + 21.0, "middle", "", &format!("{tick}"));
        tick += step;
    }
    svg.text((BARS + RIGHT) / 2.0, bottom + 46.0, "middle", "", "kilobytes (1000 bytes)");
    for (i, run) in runs.iter().enumerate() {
        let top = TOP + 8.0 + ROW * i as f64;
        let width = x(run.state_bytes as f64 / 1000.0) - BARS;
        let full = run.stored == "full";
        let fill = if full { "#0072b2" } else { "#e69f00" };
        svg.push(format!(
            r#"<rect x="{BARS}" y="{top:.1}" width="{width:.1}" height="22" fill="{fill}"/>"#
        ));
        svg.text(BARS - 10.0, top + 15.5, "end", "", run.method);
        let value = format!(
            "{:.0} kB · {:.2} B per parameter",
            run.state_bytes as f64 / 1000.0,
            run.bytes_per_parameter()
        );
        // white behind the words, where grid lines would cross them
        let (left, wide) = (BARS + width + 4.0, 7.4 * value.chars().count() as f64 + 8.0);
        svg.push(format!(
            r#"<rect x="{left:.1}" y="{top:.1}" width="{wide:.1}" height="22" fill="white"/>"#
        ));
        svg.text(left + 4.0, top + 15.5, "start", "", &value);
    }
    svg.line((BARS, TOP), (BARS, bottom), r#"class="axis""#);
    svg.finish()
}
