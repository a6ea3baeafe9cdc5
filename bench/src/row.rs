//! One row of the speed table: its name, how to measure it, what it is held to.

use serde::{Deserialize, Serialize};

/// A benchmark. `run` makes its own runtime and servers; it has the process to itself.
#[derive(Clone, Copy)]
pub struct Row {
    /// As on the command line.
    pub name: &'static str,
    /// What is compared with what, in a line.
    pub about: &'static str,
    /// Measures it: one outcome for each figure that has a target.
    pub run: fn() -> anyhow::Result<Vec<Outcome>>,
}

/// What a figure is held to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Larger is better.
    AtLeast(f64),
    /// Smaller is better.
    AtMost(f64),
    /// For information only.
    None,
}

impl Target {
    /// Whether a figure meets it.
    #[must_use]
    pub fn met(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bound) => figure >= bound,
            Self::AtMost(bound) => figure <= bound,
            Self::None => true,
        }
    }
}

/// A measured figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// What was measured, in a few words.
    pub what: String,
    /// The figure.
    pub figure: f64,
    /// Its unit; empty for a ratio.
    pub unit: String,
    /// What it is held to.
    pub target: Target,
    /// The two sides in absolute numbers, sample counts, what the peer was.
    pub detail: String,
}

impl Outcome {
    /// A ratio.
    pub fn ratio(what: impl Into<String>, figure: f64, target: Target, detail: impl Into<String>) -> Self {
        Self { what: what.into(), figure, unit: String::new(), target, detail: detail.into() }
    }

    /// A figure with a unit.
    pub fn figure(
        what: impl Into<String>,
        figure: f64,
        unit: impl Into<String>,
        target: Target,
        detail: impl Into<String>,
    ) -> Self {
        Self { what: what.into(), figure, unit: unit.into(), target, detail: detail.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn targets_include_their_bound() {
        assert!(Target::AtLeast(0.9).met(0.9) && !Target::AtLeast(0.9).met(0.89));
        assert!(Target::AtMost(1.4).met(1.4) && !Target::AtMost(1.4).met(1.41));
        assert!(Target::None.met(f64::MAX));
    }
}
