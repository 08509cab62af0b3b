//! What is measured: a figure with its rounds and its target, and the data of a plot. Knows nothing of how.

use serde_json::{Value, json};

use crate::stats::median;

/// What a figure should reach.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "a vocabulary")]
pub enum Target {
    /// The ratio of ours to theirs, at least.
    RatioAtLeast(f64),
    /// The ratio of ours to theirs, at most.
    RatioAtMost(f64),
    /// Our value, at least.
    AtLeast(f64),
    /// Our value, at most.
    AtMost(f64),
    /// It is there to be read.
    None,
}

/// One line of the table.
pub struct Figure {
    /// What it says, in the table.
    pub name: String,
    /// Of the values.
    pub unit: &'static str,
    /// A value for each round.
    pub ours: Vec<f64>,
    /// What ours are held against, likewise; may be empty.
    pub theirs: Vec<f64>,
    /// What that is.
    pub versus: &'static str,
    /// What it should reach.
    pub target: Target,
    /// More for people, in one line; may be empty.
    pub note: String,
    /// More for programs: samples, counts.
    pub raw: Value,
}

impl Figure {
    /// With nothing to be held against, no target and no note.
    pub fn new(name: &str, unit: &'static str, ours: Vec<f64>) -> Figure {
        Figure {
            name: name.to_owned(),
            unit,
            ours,
            theirs: Vec::new(),
            versus: "",
            target: Target::None,
            note: String::new(),
            raw: Value::Null,
        }
    }

    /// Held against these values.
    pub fn against(self, versus: &'static str, theirs: Vec<f64>) -> Figure {
        Figure { versus, theirs, ..self }
    }

    /// With a target.
    pub fn target(self, target: Target) -> Figure {
        Figure { target, ..self }
    }

    /// With a note.
    pub fn note(self, note: impl Into<String>) -> Figure {
        Figure { note: note.into(), ..self }
    }

    /// With all that was seen.
    pub fn raw(self, raw: Value) -> Figure {
        Figure { raw, ..self }
    }

    /// Median of ours over median of theirs.
    pub fn ratio(&self) -> Option<f64> {
        let theirs = median(&self.theirs);
        (theirs != 0.0).then(|| median(&self.ours) / theirs)
    }

    /// Whether it reaches its target; `None` when it has none.
    pub fn met(&self) -> Option<bool> {
        let ours = median(&self.ours);
        match self.target {
            Target::RatioAtLeast(least) => Some(self.ratio()? >= least),
            Target::RatioAtMost(most) => Some(self.ratio()? <= most),
            Target::AtLeast(least) => Some(ours >= least),
            Target::AtMost(most) => Some(ours <= most),
            Target::None => None,
        }
    }

    /// The target as people read it.
    pub fn wanted(&self) -> String {
        match self.target {
            Target::RatioAtLeast(least) => format!(">= {} x", short(least)),
            Target::RatioAtMost(most) => format!("<= {} x", short(most)),
            Target::AtLeast(least) => format!(">= {}", short(least)),
            Target::AtMost(most) => format!("<= {}", short(most)),
            Target::None => String::new(),
        }
    }

    /// For the file beside the table.
    pub fn json(&self) -> Value {
        json!({
            "name": self.name, "unit": self.unit, "versus": self.versus,
            "ours": median(&self.ours), "theirs": (!self.theirs.is_empty()).then(|| median(&self.theirs)),
            "ratio": self.ratio(), "target": self.wanted(), "met": self.met(), "note": self.note,
            "rounds": { "ours": self.ours, "theirs": self.theirs }, "raw": self.raw,
        })
    }
}

/// A number with as many digits as it deserves.
pub fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => {
            let digits = format!("{value:.0}");
            let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
            let groups: Vec<&str> =
                digits.as_bytes().rchunks(3).rev().map(|g| str::from_utf8(g).unwrap_or_default()).collect();
            format!("{sign}{}", groups.join(","))
        }
        v if v >= 100.0 || v.fract() == 0.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// One line of a plot.
pub struct Series {
    /// Its name.
    pub name: &'static str,
    /// x and y.
    pub points: Vec<(f64, f64)>,
}

/// One picture.
pub struct Plot {
    /// The file's name without its ending.
    pub file: &'static str,
    /// What stands above it.
    pub title: String,
    /// What is to the right.
    pub x: &'static str,
    /// What is upwards; it begins with 0.
    pub y: &'static str,
    /// Whether x is logarithmic.
    pub log_x: bool,
    /// The lines.
    pub series: Vec<Series>,
}

/// What one figure's file measures.
#[derive(Default)]
pub struct Outcome {
    /// Lines of the table.
    pub figures: Vec<Figure>,
    /// Pictures.
    pub plots: Vec<Plot>,
}
