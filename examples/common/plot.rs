//! Drawings, as SVG.

use std::fmt::Write;

/// Colours that stay apart for most colour-blind readers (Okabe and Ito; grey for their yellow).
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#000000", "#56b4e9", "#7f7f7f"];
const DASHES: [&str; 5] = ["none", "9 4", "2.5 3.5", "11 4 2.5 4", "13 3 2.5 3 2.5 3"];

/// Width of a drawing.
pub const WIDTH: f64 = 960.0;
/// Left end of the axes.
pub const LEFT: f64 = 80.0;
/// Upper end of the axes.
pub const TOP: f64 = 64.0;
/// Losses below count as this: beyond the resolution of the loss itself.
const SMALLEST: f64 = 1e-6;

/// The colour of run number `run`.
pub fn colour(run: usize) -> &'static str {
    COLOURS.get(run % COLOURS.len()).unwrap_or(&"black")
}

fn dash(run: usize) -> &'static str {
    // 8 colours and 5 patterns: the pair does not repeat before the 41st run
    DASHES.get(run % DASHES.len()).unwrap_or(&"none")
}

/// A drawing under construction.
pub struct Svg {
    body: String,
    height: f64,
}

impl Svg {
    /// An empty one with titles.
    pub fn new(height: f64, title: &str, subtitle: &str) -> Self {
        let mut svg = Self { body: String::new(), height };
        svg.text(LEFT, 28.0, "start", "class=\"title\"", title);
        svg.text(LEFT, 48.0, "start", "class=\"soft\"", subtitle);
        svg
    }

    /// A line of a class of the style sheet.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.push(format!(
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" {class}/>"#
        ));
    }

    /// Words at a place.
    pub fn text(&mut self, x: f64, y: f64, anchor: &str, attributes: &str, text: &str) {
        self.push(format!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" {attributes}>{text}</text>"#
        ));
    }

    /// Any element.
    pub fn push(&mut self, element: String) {
        self.body += &element;
        self.body.push('\n');
    }

    /// The file.
    pub fn finish(self) -> String {
        let Self { body, height } = self;
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">
<style>
text {{ font: 13px "DejaVu Sans", Verdana, sans-serif; fill: #222 }}
.title {{ font-size: 17px; font-weight: bold }}
.soft {{ fill: #666 }}
.grid {{ stroke: #ddd; stroke-width: 1 }}
.fine {{ stroke: #f2f2f2; stroke-width: 1 }}
.axis {{ stroke: #444; stroke-width: 1.2 }}
.curve {{ fill: none; stroke-width: 2; stroke-linejoin: round }}
</style>
<rect width="{WIDTH}" height="{height}" fill="white"/>
{body}</svg>
"##
        )
    }
}

/// A step of 1, 2 or 5 times a power of ten that divides `range` into at most `most` parts.
pub fn tick_step(range: f64, most: f64) -> f64 {
    let raw = (range / most).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().find(|step| step * power >= raw * (1.0 - 1e-9));
    step.unwrap_or(10.0) * power
}

/// A line of a plot: losses before the first epoch and after each.
pub struct Curve<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    /// The losses; those that are not finite are left out.
    pub losses: &'a [f64],
}

/// Losses against the epoch, on a logarithmic scale.
pub fn losses(title: &str, subtitle: &str, runs: &[Curve<'_>]) -> String {
    losses_over("epoch", title, subtitle, runs)
}

/// Losses against something else than epochs.
pub fn losses_over(unit: &str, title: &str, subtitle: &str, runs: &[Curve<'_>]) -> String {
    const HEIGHT: f64 = 540.0;
    const RIGHT: f64 = WIDTH - 250.0;
    const BOTTOM: f64 = HEIGHT - 60.0;
    let mut svg = Svg::new(HEIGHT, title, subtitle);
    let losses = || runs.iter().flat_map(|run| run.losses).filter(|loss| loss.is_finite());
    let highest = losses().fold(1.0, |a: f64, &b| a.max(b)).log10().ceil();
    let lowest = losses().fold(0.1, |a: f64, &b| a.min(b)).max(SMALLEST).log10().floor();
    // a whole decade above the start would be empty
    let top = losses().fold(1.0, |a: f64, &b| a.max(b)).log10() + 0.1;
    let epochs = runs.iter().map(|run| run.losses.len() - 1).max().unwrap_or(1).max(1) as f64;
    let x = |epoch: f64| LEFT + (RIGHT - LEFT) * epoch / epochs;
    let y = |log: f64| TOP + (BOTTOM - TOP) * (top - log) / (top - lowest);

    for decade in (lowest as i32)..=(highest as i32) {
        for digit in 2..10 {
            let log = f64::from(decade) + f64::from(digit).log10();
            if log < top {
                svg.line((LEFT, y(log)), (RIGHT, y(log)), r#"class="fine""#);
            }
        }
    }
    for decade in (lowest as i32)..=(highest as i32) {
        let log = f64::from(decade);
        if log <= top {
            svg.line((LEFT, y(log)), (RIGHT, y(log)), r#"class="grid""#);
            let label = format!("{}", 10f64.powi(decade));
            svg.text(LEFT - 8.0, y(log) + 4.5, "end", "", &label);
        }
    }
    let step = tick_step(epochs, 10.0).max(1.0);
    let mut epoch = 0.0;
    while epoch <= epochs {
        svg.line((x(epoch), BOTTOM), (x(epoch), BOTTOM + 5.0), r#"class="axis""#);
        svg.text(x(epoch), BOTTOM + 21.0, "middle", "", &format!("{epoch}"));
        epoch += step;
    }
    svg.line((LEFT, TOP), (LEFT, BOTTOM), r#"class="axis""#);
    svg.line((LEFT, BOTTOM), (RIGHT, BOTTOM), r#"class="axis""#);
    svg.text((LEFT + RIGHT) / 2.0, BOTTOM + 46.0, "middle", "", unit);
    let middle = (TOP + BOTTOM) / 2.0;
    svg.text(20.0, middle, "middle", &format!(r#"transform="rotate(-90 20 {middle})""#), "loss");

    // broken lines over whole ones, so that curves that coincide are both seen
    let mut order: Vec<(usize, &Curve<'_>)> = runs.iter().enumerate().collect();
    order.sort_by_key(|(i, _)| dash(*i) != "none");
    for &(i, run) in &order {
        let mut points = String::new();
        for (epoch, &loss) in run.losses.iter().enumerate().filter(|(_, loss)| loss.is_finite()) {
            let log = loss.max(SMALLEST).log10();
            // writing to a string cannot fail
            let _ = write!(points, "{:.1},{:.1} ", x(epoch as f64), y(log));
        }
        svg.push(format!(
            r#"<polyline class="curve" stroke="{}" stroke-dasharray="{}" points="{}"/>"#,
            colour(i),
            dash(i),
            points.trim_end(),
        ));
    }

    let last = |run: &Curve<'_>| run.losses.last().copied().unwrap_or(f64::NAN);
    // beside the curves, in the order in which they end
    order.sort_by(|(_, a), (_, b)| last(b).total_cmp(&last(a)));
    let left = RIGHT + 24.0;
    svg.text(left, TOP + 6.0, "start", r#"class="soft""#, "highest loss at the end");
    for (row, (i, run)) in order.iter().enumerate() {
        let y = TOP + 32.0 + 24.0 * row as f64;
        let stroke =
            format!(r#"class="curve" stroke="{}" stroke-dasharray="{}""#, colour(*i), dash(*i));
        svg.line((left, y), (left + 38.0, y), &stroke);
        svg.text(left + 46.0, y + 4.5, "start", "", run.name);
    }
    let y = TOP + 38.0 + 24.0 * order.len() as f64;
    svg.text(left, y, "start", r#"class="soft""#, "lowest");
    svg.finish()
}
