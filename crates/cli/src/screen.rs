//! Where results go: tables for people, JSON for programs. Only results go to stdout.

use std::io::{IsTerminal as _, Write as _, stderr, stdout};

use chrono::{DateTime, Utc};
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::error::Error;

/// Stdout as this process has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    json: bool,
    colour: bool,
    progress: bool,
}

/// How a value strikes the eye, where there is colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Wait,
    Bad,
}

impl Screen {
    pub(crate) fn new(json: bool) -> Self {
        // https://no-color.org: set and not empty means no colour.
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        Self { json, colour: wanted && !dumb && stdout().is_terminal(), progress: !dumb && stderr().is_terminal() }
    }

    /// Whether a program reads.
    pub(crate) const fn json(self) -> bool {
        self.json
    }

    /// Whether somebody watches stderr.
    pub(crate) const fn progress(self) -> bool {
        self.progress
    }

    /// The value as JSON when asked for, else as `human` puts it.
    pub(crate) fn show<T: Serialize>(self, value: &T, human: impl FnOnce(Self) -> String) -> Result<(), Error> {
        if self.json { self.value(value) } else { self.text(&human(self)) }
    }

    /// JSON, indented.
    pub(crate) fn value<T: Serialize>(self, value: &T) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(value).map_err(std::io::Error::other)?;
        self.text(&text)
    }

    /// JSON on one line.
    pub(crate) fn line<T: Serialize>(self, value: &T) -> Result<(), Error> {
        let text = serde_json::to_string(value).map_err(std::io::Error::other)?;
        self.text(&text)
    }

    /// Text as it is.
    pub(crate) fn text(self, text: &str) -> Result<(), Error> {
        let mut out = stdout().lock();
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') && !text.is_empty() {
            out.write_all(b"\n")?;
        }
        out.flush()?;
        Ok(())
    }

    /// A table of rows under these heads; `nothing` when there are no rows.
    pub(crate) fn table(self, heads: &[&str], rows: Vec<Vec<(String, Tone)>>, nothing: &str) -> String {
        if rows.is_empty() {
            return nothing.to_owned();
        }
        let mut table = self.bare_table();
        table.set_header(heads.iter().map(|head| self.cell(head, Tone::Plain).add_attribute(Attribute::Bold)));
        table
            .add_rows(rows.into_iter().map(|row| row.into_iter().map(|(text, tone)| self.cell(&text, tone)).collect::<Vec<_>>()));
        finish(&table)
    }

    /// Names and their values, one a line.
    pub(crate) fn facts(self, facts: Vec<(&str, String, Tone)>) -> String {
        let mut table = self.bare_table();
        table.add_rows(facts.into_iter().filter(|(_, value, _)| !value.is_empty()).map(|(name, value, tone)| {
            vec![self.cell(name, Tone::Plain).add_attribute(Attribute::Bold), self.cell(&value, tone)]
        }));
        finish(&table)
    }

    fn bare_table(self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table
    }

    fn cell(self, text: &str, tone: Tone) -> Cell {
        let cell = Cell::new(text);
        match tone {
            Tone::Plain => cell,
            Tone::Good => cell.fg(Color::Green),
            Tone::Wait => cell.fg(Color::Yellow),
            Tone::Bad => cell.fg(Color::Red),
        }
    }
}

/// Without the blanks that fill a line's end and begin each line.
fn finish(table: &Table) -> String {
    table.to_string().lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect::<Vec<_>>().join("\n")
}

/// To the second, in UTC.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// What nobody has said is a hyphen.
pub(crate) fn or_hyphen(text: Option<String>) -> String {
    text.filter(|t| !t.is_empty()).unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
impl Screen {
    /// Neither colour nor progress: what a pipe sees.
    pub(crate) const PIPE: Self = Self { json: false, colour: false, progress: false };
}
