//! `insula config`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use insula_api::document::{Document, PutDocument, Rollout};
use insula_core::Kind;
use serde_json::Value;

use crate::error::Error;
use crate::screen::{Screen, Tone, or_hyphen, time};
use crate::target::Target;

/// Configuration documents: put versions of them, and roll these out, to some tenants first
#[derive(clap::Args, Debug)]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(clap::Subcommand, Debug)]
enum ConfigCommand {
    /// Put a new version; it holds for nobody until it is rolled out
    Put {
        /// The document
        name: String,
        /// A file with JSON; - for standard input
        file: PathBuf,
        /// Why, for whoever reads the list of versions
        #[arg(long, default_value = "", hide_default_value = true)]
        note: String,
    },
    /// List documents, and what is in force
    List,
    /// Show a document: what is in force, or what a version says
    Show {
        /// The document
        name: String,
        /// What the version of this number says
        #[arg(long, value_name = "VERSION")]
        at: Option<i64>,
    },
    /// Roll a version out: to some tenants, then to all
    Rollout {
        /// The document
        name: String,
        /// Which version; the newest unless given
        #[arg(long, value_name = "VERSION")]
        at: Option<i64>,
        /// To all tenants
        #[arg(long, conflicts_with_all = ["percent", "tenants"])]
        all: bool,
        /// To so many of a hundred tenants
        #[arg(long, default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u8).range(0..=100))]
        percent: u8,
        /// To this tenant besides (repeatable)
        #[arg(long = "tenant", value_name = "TENANT")]
        tenants: Vec<String>,
    },
    /// Take a rollout back; without one under way, go back to the version before
    Rollback {
        /// The document
        name: String,
    },
}

pub(crate) async fn run(args: ConfigArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    let document = match args.command {
        ConfigCommand::Put { name, file, note } => {
            let put = client.put_document(&name, &PutDocument { value: read(&file)?, note }).await?;
            return screen
                .show(&put, |_| format!("{} version {}: `insula config rollout {0}` puts it in force", put.name, put.version));
        }
        ConfigCommand::List => {
            let documents = client.documents().await?;
            return screen.show(&documents, |screen| table(screen, &documents.items));
        }
        ConfigCommand::Show { name, at: Some(version) } => {
            let versions = client.document_versions(&name).await?.items;
            let found = versions.into_iter().find(|v| v.version == version);
            let missing = || Error::new(Kind::NotFound, format!("{name} has no version {version}"), "");
            return screen.value(&found.ok_or_else(missing)?.value);
        }
        ConfigCommand::Show { name, at: None } => client.document(&name).await?,
        ConfigCommand::Rollout { name, at, all, percent, tenants } => {
            client.roll_out(&name, &Rollout { version: at, all, percent, tenants }).await?
        }
        ConfigCommand::Rollback { name } => client.roll_back(&name).await?,
    };
    screen.show(&document, |screen| facts(screen, &document))
}

fn read(file: &Path) -> Result<Value, Error> {
    let bad = |what: String| Error::new(Kind::Invalid, format!("{}: {what}", file.display()), "give a file with JSON in it");
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(file).map(|content| text = content)
    };
    read.map_err(|e| bad(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| bad(e.to_string()))
}

fn canary(document: &Document) -> Option<String> {
    let canary = document.canary.as_ref()?;
    let named = match canary.tenants.len() {
        0 => String::new(),
        1 => " and 1 named tenant".to_owned(),
        many => format!(" and {many} named tenants"),
    };
    Some(format!("version {} for {}%{named}", canary.version, canary.percent))
}

fn table(screen: Screen, documents: &[Document]) -> String {
    let rows = documents.iter().map(|d| {
        vec![
            (d.name.clone(), Tone::Plain),
            (or_hyphen(d.stable.map(|v| v.to_string())), Tone::Plain),
            (or_hyphen(canary(d)), if d.canary.is_some() { Tone::Wait } else { Tone::Plain }),
            (d.newest.to_string(), Tone::Plain),
            (time(d.updated_at), Tone::Plain),
        ]
    });
    let heads = ["DOCUMENT", "IN FORCE", "ROLLOUT", "NEWEST", "CHANGED"];
    screen.table(&heads, rows.collect(), "No documents. `insula config put NAME FILE` makes one.")
}

fn facts(screen: Screen, document: &Document) -> String {
    let plain = |name, value| (name, value, Tone::Plain);
    screen.facts(vec![
        plain("document", document.name.clone()),
        plain("in force", or_hyphen(document.stable.map(|v| format!("version {v}")))),
        plain("rollout", or_hyphen(canary(document))),
        plain("before", or_hyphen(document.previous.map(|v| format!("version {v}")))),
        plain("newest", format!("version {}", document.newest)),
        plain("changed", time(document.updated_at)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_for_people() {
        let document: Document = serde_json::from_value(serde_json::json!({
            "name": "look", "newest": 3, "stable": 2, "previous": 1, "version": 7, "updated_at": "2026-01-02T03:04:05Z",
            "canary": {"version": 3, "percent": 5, "tenants": ["0190f8c0-0000-7000-8000-000000000001"]}
        }))
        .expect("a document");
        insta::assert_snapshot!("config_table", table(Screen::PIPE, std::slice::from_ref(&document)));
        insta::assert_snapshot!("config_facts", facts(Screen::PIPE, &document));
    }
}
