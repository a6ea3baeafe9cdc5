//! `insula key`.

use std::path::{Path, PathBuf};

use insula_api::identity::RotateContextKey;
use insula_api::key::{CreateKey, Key, KeyCreated, Scope};
use insula_api::page::PageQuery;
use insula_core::token::ContextKeys;
use insula_core::{Kind, RootKey};

use crate::error::Error;
use crate::screen::{Screen, Tone, or_hyphen, time};
use crate::target::Target;

/// Make, list and revoke keys to the control plane; rotate and write the keys that gateways sign with
#[derive(clap::Args, Debug)]
pub(crate) struct KeyArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(clap::Subcommand, Debug)]
enum KeyCommand {
    /// Make a key; its text is printed this once
    Create {
        /// Whose it is: the actor in the audit log
        name: String,
        /// What it may do: follow the catalog, as a gateway does; look; besides, create, suspend and resume tenants; everything
        #[arg(long, value_parser = ["edge", "read", "provisioner", "admin"])]
        scope: String,
    },
    /// List keys
    List,
    /// Revoke a key
    Revoke {
        /// Its id, or its name when only one key in force has it
        key: String,
    },
    /// Begin to replace the key that gateways sign tenant contexts with
    Rotate {
        /// Which kind of key
        #[arg(value_parser = ["context"])]
        what: String,
        /// How long the new key is published before it signs, seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        overlap: u32,
    },
    /// Write the file of the keys that a gateway signs tenant contexts with (host side: needs the root key)
    Context {
        /// The root key's file
        #[arg(long, value_name = "FILE")]
        root_key: PathBuf,
        /// Where to write it, mode 0600; a gateway reads it again when it changes
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Write the key with which a gateway opens the catalog's certificates (host side: needs the root key)
    Certificates {
        /// The root key's file
        #[arg(long, value_name = "FILE")]
        root_key: PathBuf,
        /// Where to write it, mode 0600
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

pub(crate) async fn run(args: KeyArgs) -> Result<(), Error> {
    // Made when it is needed: one command asks nobody, and may be given where there is no control plane.
    let (client, screen) = (|| args.target.client(), Screen::new(args.target.json));
    match args.command {
        KeyCommand::Create { name, scope } => {
            let scope = Scope::from_name(&scope).unwrap_or(Scope::Read);
            let created = client()?.create_key(&CreateKey { name, scope }).await?;
            screen.show(&created, |screen| created_facts(screen, &created))
        }
        KeyCommand::List => {
            let keys = client()?.keys(&PageQuery { limit: Some(500), cursor: None }).await?;
            screen.show(&keys, |screen| table(screen, &keys.items))
        }
        KeyCommand::Revoke { key } => {
            let client = client()?;
            let id = match key.parse() {
                Ok(id) => id,
                Err(_) => by_name(&client.keys(&PageQuery { limit: Some(500), cursor: None }).await?.items, &key)?,
            };
            let revoked = client.revoke_key(id).await?;
            screen.show(&revoked, |_| format!("revoked {} ({})", revoked.name, revoked.id))
        }
        KeyCommand::Rotate { what: _, overlap } => {
            let made = client()?.rotate_context_key(&RotateContextKey { overlap_seconds: overlap }).await?;
            screen
                .show(&made, |_| format!("key {} ({}) is published, and signs from {}", made.no, made.kid, time(made.signs_from)))
        }
        KeyCommand::Context { root_key, out } => {
            let root = crate::control::read_root_key(&root_key)?;
            write(screen, &out, &context_keys(&root, &client()?.context_keys().await?.items)?.to_json())
        }
        KeyCommand::Certificates { root_key, out } => {
            write(screen, &out, &crate::control::read_root_key(&root_key)?.certificate_key().to_hex())
        }
    }
}

fn write(screen: Screen, out: &Path, secret: &str) -> Result<(), Error> {
    crate::up::folder::write_secret(out, secret)?;
    screen.show(&serde_json::json!({"written": out}), |_| format!("wrote {}", out.display()))
}

/// The signing keys of these numbers, derived from the root key. One whose id differs was made from another root key.
pub(crate) fn context_keys(root: &RootKey, listed: &[insula_api::identity::ContextKey]) -> Result<ContextKeys, Error> {
    let mut keys = Vec::new();
    for entry in listed {
        let key = root.context_key(entry.no).map_err(|e| Error::new(Kind::Internal, e.to_string(), ""))?;
        if key.kid() != entry.kid {
            let help = "name the root key that the control plane has";
            return Err(Error::new(Kind::Conflict, "the control plane publishes keys of another root key", help));
        }
        keys.push((entry.signs_from.timestamp(), key));
    }
    ContextKeys::new(keys).ok_or_else(|| Error::new(Kind::NotFound, "the control plane has no signing key yet", "try again"))
}

fn by_name(keys: &[Key], name: &str) -> Result<uuid::Uuid, Error> {
    let mut found = keys.iter().filter(|key| key.name == name && key.revoked_at.is_none());
    match (found.next(), found.next()) {
        (Some(key), None) => Ok(key.id),
        (None, _) => Err(Error::new(Kind::NotFound, format!("no key {name:?} is in force"), "`insula key list` lists them")),
        (Some(_), Some(_)) => {
            Err(Error::new(Kind::Conflict, format!("several keys are named {name:?}"), "name one by its id: `insula key list`"))
        }
    }
}

fn created_facts(screen: Screen, created: &KeyCreated) -> String {
    let secret = created.secret.clone().unwrap_or_else(|| "(told once already; it cannot be told again)".to_owned());
    screen.facts(vec![
        ("name", created.key.name.clone(), Tone::Plain),
        ("id", created.key.id.to_string(), Tone::Plain),
        ("scope", created.key.scope.to_string(), Tone::Plain),
        ("key", secret, Tone::Plain),
    ])
}

fn table(screen: Screen, keys: &[Key]) -> String {
    let rows = keys.iter().map(|key| {
        let state = match key.revoked_at {
            None => ("in force".to_owned(), Tone::Good),
            Some(at) => (format!("revoked {}", time(at)), Tone::Bad),
        };
        vec![
            (key.name.clone(), Tone::Plain),
            (key.scope.to_string(), Tone::Plain),
            state,
            (or_hyphen(key.last_used_at.map(time)), Tone::Plain),
            (key.id.to_string(), Tone::Plain),
        ]
    });
    screen.table(&["NAME", "SCOPE", "STATE", "LAST USED", "ID"], rows.collect(), "No keys.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_listed_and_found_by_name() {
        let key = |id: u8, revoked: Option<&str>| -> Key {
            serde_json::from_value(serde_json::json!({
                "id": format!("0190f8c0-0000-7000-8000-00000000000{id}"), "name": "ci", "scope": "provisioner",
                "created_at": "2026-01-02T03:04:05Z", "last_used_at": null, "revoked_at": revoked
            }))
            .expect("a key")
        };
        let keys = [key(1, Some("2026-01-03T03:04:05Z")), key(2, None)];
        insta::assert_snapshot!("key_table", table(Screen::PIPE, &keys));
        assert_eq!(by_name(&keys, "ci").expect("one in force"), keys[1].id);
        assert_eq!(by_name(&keys[..1], "ci").expect_err("none in force").kind(), Kind::NotFound);
        assert_eq!(by_name(&[key(1, None), key(2, None)], "ci").expect_err("two").kind(), Kind::Conflict);
    }
}
