//! What was measured, as a table for the terminal, Markdown and a picture.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _, stdout},
    path::Path,
    time::SystemTime,
};

use hdrhistogram::Histogram;

/// What one row of the table says.
pub(crate) struct Row {
    pub(crate) what: String,
    /// What is measured, and what it is held against; empty where that is nothing.
    pub(crate) figure: String,
    pub(crate) against: String,
    pub(crate) measured: Measured,
    pub(crate) goal: Option<Goal>,
}

/// The value that is to reach the goal.
pub(crate) enum Measured {
    /// Of several rounds, in this unit.
    Rounds(Rounds, &'static str),
    /// Not, and why.
    Not(String),
}

/// The figures of several rounds.
#[derive(Clone)]
pub(crate) struct Rounds(Vec<f64>);

/// What a value must be, and where two bounds are named, what it should reach.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    Must { at_most: f64, reach: f64 },
}

impl Rounds {
    pub(crate) fn new(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        Self(figures)
    }

    /// One figure.
    pub(crate) fn one(figure: f64) -> Self {
        Self(vec![figure])
    }

    pub(crate) fn median(&self) -> f64 {
        let (middle, count) = (self.0.len() / 2, self.0.len());
        if count.is_multiple_of(2) {
            f64::midpoint(self.0[middle - 1], self.0[middle])
        } else {
            self.0[middle]
        }
    }

    pub(crate) fn least(&self) -> f64 {
        self.0[0]
    }

    pub(crate) fn most(&self) -> f64 {
        self.0[self.0.len() - 1]
    }

    /// Whether they are so far apart that more are needed.
    pub(crate) fn is_noisy(&self) -> bool {
        self.most() - self.least() > 0.15 * self.median()
    }
}

impl Goal {
    fn text(self, unit: &str) -> String {
        match self {
            Self::AtMost(bound) => format!("≤ {}", number(bound, unit)),
            Self::AtLeast(bound) => format!("≥ {}", number(bound, unit)),
            Self::Must { at_most, reach } => {
                format!("must ≤ {}, reach ≤ {}", number(at_most, unit), number(reach, unit))
            }
        }
    }

    fn verdict(self, value: f64) -> &'static str {
        match self {
            Self::AtMost(bound) if value <= bound => "reached",
            Self::AtLeast(bound) if value >= bound => "reached",
            Self::Must { reach, .. } if value <= reach => "reached",
            Self::Must { at_most, .. } if value <= at_most => "must only",
            Self::AtMost(_) | Self::AtLeast(_) | Self::Must { .. } => "MISSED",
        }
    }
}

impl Row {
    /// A row about what could not be measured.
    pub(crate) fn not(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            figure: String::new(),
            against: String::new(),
            measured: Measured::Not(why.into()),
            goal: None,
        }
    }

    fn cells(&self) -> [String; 6] {
        let (value, spread, goal) = match (&self.measured, self.goal) {
            (Measured::Not(why), _) => {
                (format!("not measured: {why}"), String::new(), String::new())
            }
            (Measured::Rounds(rounds, unit), goal) => {
                let spread = match rounds.0.len() {
                    1 => String::new(),
                    count => format!(
                        "{} – {} of {count}",
                        number(rounds.least(), ""),
                        number(rounds.most(), "")
                    ),
                };
                let goal = goal.map_or_else(String::new, |goal| {
                    format!("{}: {}", goal.text(unit), goal.verdict(rounds.median()))
                });
                (number(rounds.median(), unit), spread, goal)
            }
        };
        [self.what.clone(), self.figure.clone(), self.against.clone(), value, spread, goal]
    }
}

/// A figure with three digits that count, and its unit.
pub(crate) fn number(value: f64, unit: &str) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.1 => 2,
        _ => 4,
    };
    let space = if unit.is_empty() { "" } else { " " };
    format!("{value:.digits$}{space}{unit}")
}

const HEADS: [&str; 6] = ["what", "figure", "reference", "value", "spread", "goal"];
const WIDTHS: [usize; 5] = [58, 20, 22, 14, 22];

/// The rows so far, which are printed as they come.
pub(crate) struct Report {
    rows: Vec<Row>,
    curves: Vec<(String, Histogram<u64>)>,
    about: Vec<String>,
}

impl Report {
    pub(crate) fn new(about: Vec<String>) -> Self {
        let report = Self { rows: Vec::new(), curves: Vec::new(), about };
        for line in &report.about {
            say(line);
        }
        say("");
        say(&line(&HEADS.map(ToOwned::to_owned)));
        report
    }

    pub(crate) fn add(&mut self, row: Row) {
        say(&line(&row.cells()));
        self.rows.push(row);
    }

    /// Adds a distribution of latencies to the picture.
    pub(crate) fn curve(&mut self, name: impl Into<String>, latencies: Histogram<u64>) {
        self.curves.push((name.into(), latencies));
    }

    /// Writes what was measured today to this directory.
    pub(crate) fn save(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let now = prost_types::Timestamp::from(SystemTime::now()).to_string();
        let date = now.split('T').next().unwrap_or(&now);
        let mut text =
            format!("# Benchmark of {date}\n\n`cargo bench --bench verify -- --save`\n\n");
        for line in &self.about {
            text.push_str(&format!("- {line}\n"));
        }
        let rule = HEADS.map(|_| "---".to_owned());
        let rows = self.rows.iter().map(Row::cells);
        text.push('\n');
        for cells in [HEADS.map(ToOwned::to_owned), rule].into_iter().chain(rows) {
            writeln!(text, "| {} |", cells.join(" | ")).map_err(io::Error::other)?;
        }
        if !self.curves.is_empty() {
            let picture = format!("{date}.svg");
            fs::write(directory.join(&picture), self.picture())?;
            writeln!(text, "\n![Latencies]({picture})").map_err(io::Error::other)?;
        }
        fs::write(directory.join(format!("{date}.md")), text)
    }

    /// Latency against percentile, both on scales that show the slowest.
    fn picture(&self) -> String {
        const COLOURS: [&str; 6] =
            ["#1b6ac9", "#c9501b", "#2a9d3a", "#8a3ac9", "#777777", "#b8a000"];
        let (width, height, left, top) = (760.0, 380.0, 70.0, 20.0);
        let percentiles = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99];
        let across = |percentile: f64| {
            let nines = -(1.0 - percentile / 100.0).max(1e-4).log10();
            left + nines / 4.0 * width
        };
        let (least, most) = (1e4_f64.log10(), self.slowest().max(1e6).log10());
        let up =
            |nanos: f64| top + height - (nanos.max(1e4).log10() - least) / (most - least) * height;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
            left + width + 20.0,
            top + height + 50.0 + 18.0 * self.curves.len() as f64,
        );
        for percentile in percentiles {
            let x = across(percentile);
            svg.push_str(&format!(
                "<path d=\"M{x:.1} {top}v{height}\" stroke=\"#ddd\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{percentile} %</text>\n",
                top + height + 18.0
            ));
        }
        for power in 4..=10 {
            let nanos = 10_f64.powi(power);
            if nanos > 10_f64.powf(most) {
                break;
            }
            let y = up(nanos);
            svg.push_str(&format!(
                "<path d=\"M{left} {y:.1}h{width}\" stroke=\"#ddd\"/>\
                 <text x=\"{}\" y=\"{y:.1}\" text-anchor=\"end\">{} ms</text>\n",
                left - 6.0,
                nanos / 1e6
            ));
        }
        for ((name, latencies), (at, colour)) in
            self.curves.iter().zip(COLOURS.iter().cycle().enumerate())
        {
            let points: Vec<String> = (0..=200)
                .map(|step| 100.0 * (1.0 - 10_f64.powf(-4.0 * f64::from(step) / 200.0)))
                .map(|percentile| {
                    let nanos = latencies.value_at_percentile(percentile) as f64;
                    format!("{:.1},{:.1}", across(percentile), up(nanos))
                })
                .collect();
            svg.push_str(&format!(
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\n\
                 <text x=\"{left}\" y=\"{}\" fill=\"{colour}\">{name}</text>\n",
                points.join(" "),
                top + height + 42.0 + 18.0 * at as f64
            ));
        }
        svg + "</svg>\n"
    }

    fn slowest(&self) -> f64 {
        self.curves
            .iter()
            .map(|(_, latencies)| latencies.value_at_percentile(99.99) as f64)
            .fold(0.0, f64::max)
    }
}

fn line(cells: &[String; 6]) -> String {
    let mut text = String::new();
    for (at, cell) in cells.iter().enumerate() {
        text.push_str(cell);
        if let Some(width) = WIDTHS.get(at) {
            let blanks = width.saturating_sub(cell.chars().count()).max(1);
            text.extend(std::iter::repeat_n(' ', blanks));
        }
    }
    text.trim_end().to_owned()
}

/// Says a line to whoever waits.
pub(crate) fn say(line: &str) {
    let mut stdout = stdout().lock();
    // Who reads it may have gone.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
