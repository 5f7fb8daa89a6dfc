//! Distributions of latencies as a picture.

use hdrhistogram::Histogram;

use crate::report::number;

/// Of the plot, and of what is around it.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 84.0;
const TOP: f64 = 56.0;
const RIGHT: f64 = 28.0;
const LEGEND: f64 = 22.0;

/// How many nines the axis of percentiles has: up to 99.99 %.
const NINES: f64 = 4.0;
const PERCENTILES: [f64; 6] = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99];

/// Colours that can be told apart, also by those who see few, on white and on black.
const COLOURS: usize = 6;
const STYLE: &str = "\
    text { font: 13px system-ui, sans-serif; fill: #1f2328 } \
    .title { font-size: 15px; font-weight: 600 } .small { fill: #59636e } \
    .page { fill: #ffffff } .grid { stroke: #d1d9e0 } .minor { stroke: #eaeef2 } \
    .line { fill: none; stroke-width: 2.5; stroke-linejoin: round } \
    .c0 { stroke: #0969da } .c1 { stroke: #d1570a } .c2 { stroke: #1a7f37 } \
    .c3 { stroke: #8250df } .c4 { stroke: #b35900 } .c5 { stroke: #57606a } \
    @media (prefers-color-scheme: dark) { text { fill: #f0f6fc } .small { fill: #9198a1 } \
    .page { fill: #0d1117 } .grid { stroke: #3d444d } .minor { stroke: #21262d } \
    .c0 { stroke: #4493f8 } .c1 { stroke: #f0883e } .c2 { stroke: #3fb950 } \
    .c3 { stroke: #ab7df8 } .c4 { stroke: #e3b341 } .c5 { stroke: #b1bac4 } }";

/// Where a latency and a percentile stand.
struct Scale {
    /// The powers of ten, in nanoseconds, between which the latencies are.
    least: i32,
    most: i32,
}

impl Scale {
    fn of(curves: &[(String, Histogram<u64>)]) -> Self {
        let power = |percentile: f64, nanos: &Histogram<u64>| {
            (nanos.value_at_percentile(percentile).max(1) as f64).log10()
        };
        let lowest = curves.iter().map(|(_, nanos)| power(0.0, nanos)).fold(9.0, f64::min);
        let highest = curves.iter().map(|(_, nanos)| power(99.99, nanos)).fold(5.0, f64::max);
        Self { least: lowest.floor() as i32, most: highest.ceil() as i32 }
    }

    /// How far from the left: each nine takes as much room as the one before.
    fn across(percentile: f64) -> f64 {
        let nines = -(1.0 - percentile / 100.0).max(10_f64.powf(-NINES)).log10();
        LEFT + nines / NINES * WIDTH
    }

    /// How far from the top, by the power of ten.
    fn down(&self, nanos: f64) -> f64 {
        let (least, most) = (f64::from(self.least), f64::from(self.most));
        TOP + HEIGHT - (nanos.log10().max(least) - least) / (most - least) * HEIGHT
    }
}

/// Latency against percentile, both on scales that show the slowest, as SVG that goes
/// with a light and a dark page.
pub(crate) fn draw(curves: &[(String, Histogram<u64>)]) -> String {
    let scale = Scale::of(curves);
    let (width, bottom) = (LEFT + WIDTH + RIGHT, TOP + HEIGHT);
    let legend = |at: usize| bottom + 68.0 + LEGEND * at as f64;
    let height = legend(curves.len());
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"28\">Time to the answer</text>\n"
    );
    let mut line = |class: &str, path: String| {
        svg.push_str(&format!("<path class=\"{class}\" d=\"{path}\"/>\n"));
    };
    for power in scale.least..scale.most {
        for digit in 2..10 {
            let y = scale.down(f64::from(digit) * 10_f64.powi(power));
            line("minor", format!("M{LEFT} {y:.1}h{WIDTH}"));
        }
    }
    for power in scale.least..=scale.most {
        line("grid", format!("M{LEFT} {:.1}h{WIDTH}", scale.down(10_f64.powi(power))));
    }
    for percentile in PERCENTILES {
        line("grid", format!("M{:.1} {TOP}v{HEIGHT}", Scale::across(percentile)));
    }
    for (at, (_, latencies)) in curves.iter().enumerate() {
        let points = (0..=240).map(|step| {
            let percentile = 100.0 * (1.0 - 10_f64.powf(-NINES * f64::from(step) / 240.0));
            let nanos = latencies.value_at_percentile(percentile).max(1) as f64;
            format!("{:.1} {:.1}", Scale::across(percentile), scale.down(nanos))
        });
        let points: Vec<String> = points.collect();
        let class = format!("line c{}", at % COLOURS);
        line(&class, format!("M{}", points.join("L")));
        line(&class, format!("M{LEFT} {:.1}h26", legend(at)));
    }
    let mut text = |class: &str, x: f64, y: f64, anchor: &str, text: &str| {
        svg.push_str(&format!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n"
        ));
    };
    for power in scale.least..=scale.most {
        let y = scale.down(10_f64.powi(power)) + 4.0;
        text("small", LEFT - 8.0, y, "end", &duration(power));
    }
    for percentile in PERCENTILES {
        let name = format!("{percentile} %");
        text("small", Scale::across(percentile), bottom + 20.0, "middle", &name);
    }
    text("small", LEFT + WIDTH / 2.0, bottom + 40.0, "middle", "of all answers took no longer");
    for (at, (name, latencies)) in curves.iter().enumerate() {
        let at_most =
            |percentile| number(latencies.value_at_percentile(percentile) as f64 / 1e6, "ms");
        let [middle, slow, slower] = [50.0, 99.0, 99.9].map(at_most);
        let name = format!("{name}: p50 {middle}, p99 {slow}, p99.9 {slower}");
        text("", LEFT + 36.0, legend(at) + 4.0, "start", &name);
    }
    svg + "</svg>\n"
}

/// A power of ten of nanoseconds.
fn duration(power: i32) -> String {
    let (unit, of_unit) = match power {
        ..3 => ("ns", 0),
        3..6 => ("µs", 3),
        6..9 => ("ms", 6),
        9.. => ("s", 9),
    };
    format!("{} {unit}", 10_i64.pow((power - of_unit).unsigned_abs()))
}
