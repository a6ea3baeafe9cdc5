//! Settings of a process for one customer on its own server.

use std::fmt;
use std::mem::discriminant;
use std::path::PathBuf;

use insula_core::FeatureValue;
use insula_core::feature::Features;
use sqlx::postgres::PgConnectOptions;

use super::text::{Vars, wrong};
use super::{ConfigError, many};

const DATABASE_URL: &str = "INSULA_DATABASE_URL";
const TENANT_NAME: &str = "INSULA_TENANT_NAME";
const ADMIN_EMAIL: &str = "INSULA_ADMIN_EMAIL";
const FEATURES: &str = "INSULA_FEATURES";

pub(super) const NAMES: &[&str] = &[DATABASE_URL, TENANT_NAME, ADMIN_EMAIL, FEATURES];
/// Those that say nothing to a process for many.
pub(super) const ONLY_ALONE: &[&str] = NAMES;

/// Settings of a process for one customer.
#[derive(Clone)]
pub struct Alone {
    /// `INSULA_DATABASE_URL`: `postgres://HOST:PORT/DATABASE`. With an owner's name and password in it (a superuser, or a role with CREATEROLE
    /// and CREATEDB), the database is prepared and brought up to date at each start; without, it must have been. Requests are served by
    /// a login of its own in either case. A secret.
    pub database: PgConnectOptions,
    /// Whether the URL names an owner.
    pub owner: bool,
    /// `INSULA_KEYRING`: the file with this installation's key; made by the first preparation. Default `insula-keys.json`, in the working
    /// folder.
    pub keyring_path: PathBuf,
    /// `INSULA_TENANT_NAME`: what the customer is called. Default: the database's name.
    pub name: Option<String>,
    /// `INSULA_ADMIN_EMAIL`: the first user's. Default `admin@localhost`.
    pub admin_email: String,
    /// `INSULA_FEATURES`: `NAME=VALUE`, with commas between, over what the application gives a customer on its own.
    pub features: Features,
}

impl Alone {
    pub(super) fn read(vars: Vars<'_>) -> Result<Self, ConfigError> {
        vars.refuse(many::ONLY_MANY, "off")?;
        let what = "the database's address, postgres://OWNER:PASSWORD@HOST:PORT/DATABASE";
        let text = vars.need(DATABASE_URL, what)?;
        let url = url::Url::parse(text).ok().filter(|url| ["postgres", "postgresql"].contains(&url.scheme()));
        let url = url.filter(|url| url.host_str().is_some_and(|host| !host.is_empty()));
        let url = url.filter(|url| url.path().len() > 1).ok_or_else(|| wrong(DATABASE_URL, format!("give {what}")))?;
        // Its own message could quote the password.
        let database = text.parse().map_err(|_| wrong(DATABASE_URL, format!("give {what}")))?;
        Ok(Self {
            database,
            owner: !url.username().is_empty(),
            keyring_path: vars.get(many::KEYRING).unwrap_or("insula-keys.json").into(),
            name: vars.get(TENANT_NAME).map(str::to_owned),
            admin_email: vars.get(ADMIN_EMAIL).unwrap_or("admin@localhost").to_owned(),
            features: vars.list(FEATURES).map(feature).collect::<Result<_, _>>()?,
        })
    }

    /// Whether the features that the settings change are of the types that the application has them in: in another they would count as nothing.
    pub(crate) fn fits(&self, brought: &Features) -> Result<(), ConfigError> {
        for (name, value) in &self.features {
            let allowed = match brought.get(name) {
                Some(brought) if discriminant(brought) == discriminant(value) => continue,
                None => continue,
                Some(FeatureValue::Switch(_)) => "a switch, on or off",
                Some(FeatureValue::Number(_)) => "a whole number",
                Some(FeatureValue::Word(_)) => "a word",
            };
            return Err(wrong(FEATURES, format!("{name} is {allowed}")));
        }
        Ok(())
    }

    /// Where the database is, for people: never the password.
    #[must_use]
    pub fn address(&self) -> String {
        let Self { database, .. } = self;
        format!("{}:{}/{}", database.get_host(), database.get_port(), database.get_database().unwrap_or_default())
    }
}

fn feature(text: &str) -> Result<(String, FeatureValue), ConfigError> {
    let (name, value) = text.split_once('=').ok_or_else(|| wrong(FEATURES, format!("{text:?} is not NAME=VALUE")))?;
    let value = match (value, value.parse()) {
        ("true" | "on", _) => FeatureValue::Switch(true),
        ("false" | "off", _) => FeatureValue::Switch(false),
        (_, Ok(number)) => FeatureValue::Number(number),
        (word, Err(_)) => FeatureValue::Word(word.to_owned()),
    };
    Ok((name.to_owned(), value))
}

impl fmt::Debug for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alone")
            .field("database", &self.address())
            .field("owner", &self.owner)
            .field("keyring_path", &self.keyring_path)
            .finish_non_exhaustive()
    }
}
