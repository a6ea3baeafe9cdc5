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
    /// When it was measured.
    pub when: String,
    /// What was built.
    pub build: String,
}

/// What is known of one machine: the latest of each row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Which machine.
    pub machine: Vec<(String, String)>,
    /// In the order of the rows.
    pub rows: Vec<Measured>,
}

impl Record {
    /// With these rows in the place of their former figures. What another machine had measured does not stand beside them; what another build had
    /// says so.
    #[must_use]
    pub fn with(self, machine: Vec<(String, String)>, new: Vec<Measured>, order: &[&str]) -> Self {
        let old = if self.machine == machine { self.rows } else { Vec::new() };
        let mut rows: Vec<Measured> = old.into_iter().filter(|row| new.iter().all(|n| n.name != row.name)).collect();
        rows.extend(new);
        rows.retain(|row| order.contains(&row.name.as_str()));
        rows.sort_by_key(|row| order.iter().position(|name| *name == row.name));
        Self { machine, rows }
    }
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
pub fn document(record: &Record) -> String {
    let mut text = String::from(
        "# Measured\n\nWritten by `make bench`. Sides alternate in one run; a ratio is the median of same-round ratios (ours over the peer's).\n\
         The last column is the share of the machine that programs outside the benchmark used meanwhile: with more than a few per cent, times\n\
         read too high and ratios are noisy. Below the table stand for each row when it was measured, and with which build: profile dist; *trained* is\n\
         told in decision 0068, and of which commit; the peers are as their packages bring them.\n\nMeasured on:\n\n",
    );
    for (name, value) in &record.machine {
        let _ = writeln!(text, "- {name}: {value}");
    }
    let _ = writeln!(text, "\n{}\n## Details\n", table(&record.rows));
    for row in &record.rows {
        let _ = writeln!(text, "- `{}`: {}, {:.0} s; {}", row.name, row.when, row.seconds, row.build);
        for o in row.outcomes.iter().flatten().filter(|o| !o.detail.is_empty()) {
            let _ = writeln!(text, "  - {}: {}", o.what, o.detail);
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
            when: String::new(),
            build: String::new(),
        };
        let failed = Measured {
            name: "up".to_owned(),
            outcomes: Err("no binary | here".to_owned()),
            foreign: None,
            seconds: 0.0,
            when: String::new(),
            build: String::new(),
        };
        assert!(!ok.met() && !failed.met());
        let text = table(&[ok, failed]);
        assert!(text.contains("| route | by host | at most 1.30 | 1.31 | **missed** | 2% |"), "{text}");
        assert!(text.contains("| route | memory | at most 400 bytes | 352 bytes | met | 2% |"), "{text}");
        assert!(text.contains("| up | not measured: no binary   here |"), "{text}");
    }

    #[test]
    fn new_figures_replace_those_of_their_row_on_this_machine() {
        let row = |name: &str, seconds: f64| Measured {
            name: name.to_owned(),
            outcomes: Ok(vec![]),
            foreign: None,
            seconds,
            when: String::new(),
            build: String::new(),
        };
        let machine = |name: &str| vec![("CPU".to_owned(), name.to_owned())];
        let seen = |record: &Record| record.rows.iter().map(|row| (row.name.clone(), row.seconds)).collect::<Vec<_>>();
        let order = ["a", "b", "c"];
        let old = Record { machine: machine("x"), rows: vec![row("a", 1.0), row("c", 1.0), row("gone", 1.0)] };
        let new = old.clone().with(machine("x"), vec![row("b", 2.0), row("a", 2.0)], &order);
        assert_eq!(seen(&new), [("a".to_owned(), 2.0), ("b".to_owned(), 2.0), ("c".to_owned(), 1.0)]);
        assert_eq!(seen(&old.with(machine("y"), vec![row("b", 2.0)], &order)), [("b".to_owned(), 2.0)]);
    }
}
