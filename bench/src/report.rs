//! The table, for the terminal and for `RESULTS.md`.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::row::{Outcome, Target};

/// What one row said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Of the row.
    pub name: String,
    /// Its figures, or why there are none.
    pub outcomes: Result<Vec<Outcome>, String>,
    /// Share of the machine that others used meanwhile.
    pub foreign: Option<f64>,
    /// How long the row took, seconds.
    pub seconds: f64,
}

impl Measured {
    /// Whether it ran and met its targets.
    #[must_use]
    pub fn met(&self) -> bool {
        self.outcomes.as_ref().is_ok_and(|outcomes| outcomes.iter().all(|o| o.target.met(o.figure)))
    }
}

/// Markdown: one line for each figure.
#[must_use]
pub fn table(rows: &[Measured]) -> String {
    let mut text = String::from(
        "| row | what | target | measured | | others' share of the machine |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for row in rows {
        let foreign = row.foreign.map_or_else(|| "unknown".to_owned(), |share| format!("{:.0}%", share * 100.0));
        match &row.outcomes {
            Ok(outcomes) => {
                for o in outcomes {
                    // Writing to a String cannot fail.
                    let _ = writeln!(
                        text,
                        "| {} | {} | {} | {}{} | {} | {foreign} |",
                        row.name,
                        o.what,
                        target(o),
                        number(o.figure),
                        unit(&o.unit),
                        verdict(o)
                    );
                }
            }
            Err(why) => {
                let _ = writeln!(text, "| {} | not measured: {} | | | | {foreign} |", row.name, why.replace(['|', '\n'], " "));
            }
        }
    }
    text
}

/// The whole of `RESULTS.md`.
#[must_use]
pub fn document(machine: &[(&str, String)], when: &str, rows: &[Measured]) -> String {
    let mut text = String::from(
        "# Measured\n\nWritten by `make bench`. Sides alternate in one run; a ratio is the median of same-round ratios (ours over the peer's).\n\
         The last column is the share of the machine that programs outside the benchmark used meanwhile: with more than a few per cent, times\n\
         read too high and ratios are noisy.\n\n",
    );
    let _ = writeln!(text, "Measured {when} on:\n");
    for (name, value) in machine {
        let _ = writeln!(text, "- {name}: {value}");
    }
    let _ = writeln!(text, "\n{}\n## Details\n", table(rows));
    for row in rows {
        for o in row.outcomes.iter().flatten().filter(|o| !o.detail.is_empty()) {
            let _ = writeln!(text, "- `{}`, {}: {}", row.name, o.what, o.detail);
        }
    }
    text
}

fn target(o: &Outcome) -> String {
    match o.target {
        Target::AtLeast(bound) => format!("at least {}{}", number(bound), unit(&o.unit)),
        Target::AtMost(bound) => format!("at most {}{}", number(bound), unit(&o.unit)),
        Target::None => String::new(),
    }
}

const fn verdict_of(target: Target, met: bool) -> &'static str {
    match (target, met) {
        (Target::None, _) => "",
        (_, true) => "met",
        (_, false) => "**missed**",
    }
}

fn verdict(o: &Outcome) -> &'static str {
    verdict_of(o.target, o.target.met(o.figure))
}

fn unit(unit: &str) -> String {
    if unit.is_empty() { String::new() } else { format!(" {unit}") }
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_figure_and_a_line_a_failure() {
        let ok = Measured {
            name: "route".to_owned(),
            outcomes: Ok(vec![
                Outcome::ratio("by host", 1.31, Target::AtMost(1.3), "144 ns against 110 ns"),
                Outcome::figure("memory", 352.0, "bytes", Target::AtMost(400.0), ""),
            ]),
            foreign: Some(0.021),
            seconds: 3.0,
        };
        let failed =
            Measured { name: "up".to_owned(), outcomes: Err("no binary | here".to_owned()), foreign: None, seconds: 0.0 };
        assert!(!ok.met() && !failed.met());
        let text = table(&[ok, failed]);
        assert!(text.contains("| route | by host | at most 1.30 | 1.31 | **missed** | 2% |"), "{text}");
        assert!(text.contains("| route | memory | at most 400 bytes | 352 bytes | met | 2% |"), "{text}");
        assert!(text.contains("| up | not measured: no binary   here |"), "{text}");
    }
}
