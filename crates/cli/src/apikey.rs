//! `insula apikey`: keys of tenants' own programs.

use chrono::{DateTime, Utc};
use insula_api::identity::{CreateTenantKey, TenantKey, TenantKeyCreated};
use insula_api::page::PageQuery;
use insula_core::{KeyId, Kind};

use crate::error::Error;
use crate::screen::{Screen, Tone, or_hyphen, time};
use crate::target::Target;

/// Make, list and revoke API keys of a tenant's own programs
#[derive(clap::Args, Debug)]
pub(crate) struct ApikeyArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: ApikeyCommand,
}

#[derive(clap::Subcommand, Debug)]
enum ApikeyCommand {
    /// Make a key; its text is printed this once
    Create {
        /// What it is for
        name: String,
        /// Whose it is: slug or id
        #[arg(long)]
        tenant: String,
        /// What it may do, in the application's words; may be repeated
        #[arg(long = "scope", value_name = "WORD")]
        scopes: Vec<String>,
        /// When it ends: RFC 3339, as 2027-01-31T00:00:00Z
        #[arg(long, value_name = "TIME")]
        expires: Option<DateTime<Utc>>,
    },
    /// List a tenant's keys
    List {
        /// Whose: slug or id
        #[arg(long)]
        tenant: String,
    },
    /// Revoke a key: every gateway refuses it within a second
    Revoke {
        /// Its id, or its name when only one key in force has it
        key: String,
        /// Whose it is: slug or id
        #[arg(long)]
        tenant: String,
    },
}

const ALL: PageQuery = PageQuery { limit: Some(500), cursor: None };

pub(crate) async fn run(args: ApikeyArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    match args.command {
        ApikeyCommand::Create { name, tenant, scopes, expires } => {
            let new = CreateTenantKey { name, scopes, expires_at: expires };
            let created = client.create_tenant_key(&tenant, &new).await?;
            screen.show(&created, |screen| facts(screen, &created))
        }
        ApikeyCommand::List { tenant } => {
            let found = client.tenant_keys(&tenant, &ALL).await?;
            screen.show(&found, |screen| table(screen, &found.items))
        }
        ApikeyCommand::Revoke { key, tenant } => {
            let id = match key.parse() {
                Ok(id) => id,
                Err(_) => by_name(&client.tenant_keys(&tenant, &ALL).await?.items, &key)?,
            };
            let revoked = client.revoke_tenant_key(&tenant, id).await?;
            screen.show(&revoked, |_| format!("revoked {} ({})", revoked.name, revoked.id))
        }
    }
}

fn by_name(keys: &[TenantKey], name: &str) -> Result<KeyId, Error> {
    let mut found = keys.iter().filter(|key| key.name == name && key.revoked_at.is_none());
    let help = "`insula apikey list --tenant SLUG` lists them";
    match (found.next(), found.next()) {
        (Some(key), None) => Ok(key.id),
        (None, _) => Err(Error::new(Kind::NotFound, format!("no key {name:?} is in force"), help)),
        (Some(_), Some(_)) => Err(Error::new(Kind::Conflict, format!("several keys are named {name:?}"), help)),
    }
}

fn facts(screen: Screen, created: &TenantKeyCreated) -> String {
    let secret = created.secret.clone().unwrap_or_else(|| "(told once already; it cannot be told again)".to_owned());
    screen.facts(vec![
        ("name", created.key.name.clone(), Tone::Plain),
        ("id", created.key.id.to_string(), Tone::Plain),
        ("scopes", created.key.scopes.join(" "), Tone::Plain),
        ("expires", or_hyphen(created.key.expires_at.map(time)), Tone::Plain),
        ("key", secret, Tone::Plain),
    ])
}

fn table(screen: Screen, keys: &[TenantKey]) -> String {
    let rows = keys.iter().map(|key| {
        let state = match (key.revoked_at, key.expires_at) {
            (Some(at), _) => (format!("revoked {}", time(at)), Tone::Bad),
            (None, Some(at)) if at <= Utc::now() => (format!("expired {}", time(at)), Tone::Bad),
            (None, Some(at)) => (format!("until {}", time(at)), Tone::Good),
            (None, None) => ("in force".to_owned(), Tone::Good),
        };
        vec![(key.name.clone(), Tone::Plain), (key.scopes.join(" "), Tone::Plain), state, (key.id.to_string(), Tone::Plain)]
    });
    screen.table(&["NAME", "SCOPES", "STATE", "ID"], rows.collect(), "No keys.")
}
