//! `insula status`.

use std::collections::BTreeMap;

use insula_api::status::Status;

use crate::error::Error;
use crate::screen::{Screen, Tone};
use crate::target::Target;

/// Show how the whole fares
#[derive(clap::Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: StatusArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    let status = client.status().await?;
    screen.show(&status, |screen| summary(screen, &status))
}

fn counts(counts: &BTreeMap<String, i64>) -> String {
    let counts = counts.iter().filter(|(_, n)| **n != 0).map(|(name, n)| format!("{n} {name}")).collect::<Vec<_>>();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

fn summary(screen: Screen, status: &Status) -> String {
    let ready = if status.ready { ("yes".to_owned(), Tone::Good) } else { ("not yet".to_owned(), Tone::Wait) };
    let audit = match status.audit_broken_at {
        None => ("whole".to_owned(), Tone::Good),
        Some(seq) => (format!("broken at entry {seq}: somebody has tampered"), Tone::Bad),
    };
    let plain = |name, value| (name, value, Tone::Plain);
    let facts = screen.facts(vec![
        ("ready", ready.0, ready.1),
        plain("version", status.version.clone()),
        plain("revision", status.revision.to_string()),
        plain("migration", status.schema_version.to_string()),
        plain("tenants", counts(&status.tenants)),
        plain("isolation", counts(&status.isolation)),
        plain("operations", counts(&status.operations)),
        plain("warm", counts(&status.warm_databases)),
        plain("workers", counts(&status.workers)),
        plain("outbox", format!("{} waiting", status.outbox_waiting)),
        ("audit log", audit.0, audit.1),
    ]);
    format!("{facts}\n\n{}", crate::cell::table(screen, &status.cells))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_for_people() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "ready": true, "version": "0.1.0", "revision": 42, "schema_version": 3, "tenants": {"active": 4, "suspended": 0},
            "isolation": {"row": 2, "database": 2}, "operations": {}, "cells": [], "warm_databases": {"main": 4},
            "workers": {"main": 1},
            "outbox_waiting": 0, "audit_broken_at": null, "now": "2026-01-02T03:04:05Z"
        }))
        .expect("a status");
        insta::assert_snapshot!("status", summary(Screen::PIPE, &status));
    }
}
