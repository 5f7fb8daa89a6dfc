//! What was measured, as a table for the terminal, Markdown and a picture.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _, stdout},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use hdrhistogram::Histogram;

use crate::picture;

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
    Must {
        at_most: f64,
        reach: f64,
    },
    /// Of some round at least: what is more than this can't be told from it.
    NotMoreThan(f64),
}

/// Whether a goal is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Reached,
    /// What must be, but not what should be reached.
    MustOnly,
    Missed,
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::MustOnly => "must only",
            Self::Missed => "MISSED",
        }
    }
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
            Self::NotMoreThan(bound) => format!("not above {}", number(bound, unit)),
        }
    }

    fn verdict(self, rounds: &Rounds) -> Verdict {
        let value = rounds.median();
        let is_reached = match self {
            Self::AtMost(bound) | Self::Must { reach: bound, .. } => value <= bound,
            Self::AtLeast(bound) => value >= bound,
            Self::NotMoreThan(bound) => rounds.least() <= bound,
        };
        match self {
            _ if is_reached => Verdict::Reached,
            Self::Must { at_most, .. } if value <= at_most => Verdict::MustOnly,
            Self::AtMost(_) | Self::AtLeast(_) | Self::Must { .. } | Self::NotMoreThan(_) => {
                Verdict::Missed
            }
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

    /// Whether its goal is reached; `None`: it has none.
    fn verdict(&self) -> Option<Verdict> {
        match (&self.measured, self.goal) {
            (Measured::Rounds(rounds, _), Some(goal)) => Some(goal.verdict(rounds)),
            (Measured::Rounds(..), None) => None,
            // What should have been measured is not reached.
            (Measured::Not(_), _) => Some(Verdict::Missed),
        }
    }

    fn cells(&self) -> [String; 6] {
        let (value, spread, goal) = match (&self.measured, self.goal) {
            (Measured::Not(why), _) => {
                (format!("not measured: {why}"), String::new(), "MISSED".to_owned())
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
                    format!("{}: {}", goal.text(unit), goal.verdict(rounds).text())
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
        size if size >= 0.001 => 4,
        _ => 6,
    };
    let space = if unit.is_empty() { "" } else { " " };
    format!("{value:.digits$}{space}{unit}")
}

const HEADS: [&str; 6] = ["what", "figure", "reference", "value", "spread", "goal"];
const WIDTHS: [usize; 5] = [58, 20, 22, 14, 22];

/// The rows so far, which are printed as they come.
pub(crate) struct Report {
    begun: Instant,
    rows: Vec<Row>,
    curves: Vec<(String, Histogram<u64>)>,
    about: Vec<String>,
    /// How long each group took.
    took: Vec<(&'static str, Duration)>,
}

impl Report {
    pub(crate) fn new(about: Vec<String>) -> Self {
        for line in &about {
            say(line);
        }
        say("");
        say(&line(&HEADS.map(ToOwned::to_owned)));
        Self {
            begun: Instant::now(),
            rows: Vec::new(),
            curves: Vec::new(),
            about,
            took: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, row: Row) {
        say(&line(&row.cells()));
        self.rows.push(row);
    }

    /// Adds a distribution of latencies to the picture.
    pub(crate) fn curve(&mut self, name: impl Into<String>, latencies: Histogram<u64>) {
        self.curves.push((name.into(), latencies));
    }

    /// Notes that a group took so long.
    pub(crate) fn took(&mut self, group: &'static str, time: Duration) {
        self.took.push((group, time));
    }

    /// Says how long it took, and what was reached; the last of it is how much.
    pub(crate) fn close(&mut self, quietness: String) {
        self.about.push(quietness);
        self.about.push(self.times());
        say("");
        for line in self.about.iter().rev().take(2).rev().cloned().chain(self.verdicts()) {
            say(&line);
        }
    }

    fn times(&self) -> String {
        let seconds = |time: Duration| format!("{:.0} s", time.as_secs_f64());
        let groups = self.took.iter().map(|(group, time)| format!("{group} {}", seconds(*time)));
        let groups: Vec<String> = groups.collect();
        format!("{} in all: {}", seconds(self.begun.elapsed()), groups.join(", "))
    }

    /// What was not reached, and how much was.
    fn verdicts(&self) -> Vec<String> {
        let verdicts = || self.rows.iter().filter_map(|row| Some((row, row.verdict()?)));
        let count = |wanted| verdicts().filter(|(_, verdict)| *verdict == wanted).count();
        let mut lines: Vec<String> = verdicts()
            .filter(|(_, verdict)| *verdict != Verdict::Reached)
            .map(|(row, verdict)| {
                let [what, .., value, _, goal] = row.cells();
                let goal =
                    goal.rsplit_once(": ").map_or(String::new(), |(goal, _)| goal.to_owned());
                format!("{}: {what}: {value}, {goal}", verdict.text())
            })
            .collect();
        let must_only = match count(Verdict::MustOnly) {
            0 => String::new(),
            some => format!(", {some} only what they must"),
        };
        let (reached, all) = (count(Verdict::Reached), verdicts().count());
        lines.push(format!("{reached} of {all} goals reached{must_only}"));
        lines
    }

    /// Writes what was measured today to this directory.
    pub(crate) fn save(&self, directory: &Path, command: &str) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let now = prost_types::Timestamp::from(SystemTime::now()).to_string();
        let date = now.split('T').next().unwrap_or(&now);
        let mut text = format!("# Benchmark of {date}\n\n`{command}`\n\n");
        let list = |lines: &[String]| -> String {
            lines.iter().map(|line| format!("- {line}\n")).collect()
        };
        text.push_str(&list(&self.about));
        text.push_str(&format!("\n## Goals\n\n{}\n## Figures\n\n", list(&self.verdicts())));
        let rule = HEADS.map(|_| "---".to_owned());
        let rows = self.rows.iter().map(|row| {
            let is_missed = row.verdict() == Some(Verdict::Missed);
            row.cells().map(|cell| match is_missed && !cell.is_empty() {
                true => format!("**{}**", cell.trim()),
                false => cell,
            })
        });
        for cells in [HEADS.map(ToOwned::to_owned), rule].into_iter().chain(rows) {
            writeln!(text, "| {} |", cells.join(" | ")).map_err(io::Error::other)?;
        }
        if !self.curves.is_empty() {
            let picture = format!("{date}.svg");
            fs::write(directory.join(&picture), picture::draw(&self.curves))?;
            let title = "Time to the answer against the share of answers that were faster";
            writeln!(text, "\n## Latencies\n\n![{title}]({picture})").map_err(io::Error::other)?;
        }
        fs::write(directory.join(format!("{date}.md")), text)
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
