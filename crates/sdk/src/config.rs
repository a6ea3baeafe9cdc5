//! What a process of an application is told from outside.
//!
//! Always: a wrong setting stops the start with a sentence that says what to do; no secret is in any of those sentences.

mod admission;
mod alone;
mod caching;
mod many;
mod store;
mod telling;
mod text;
mod watching;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use insula_api::bundle::Bundle;
use insula_cache::CacheConfig;
use insula_core::KeyRing;
use insula_core::feature::Features;
use insula_http::AdmissionConfig;

pub use alone::Alone;
pub(crate) use many::read_keyring;
pub use many::{Jwks, Many};
pub use store::Store;
pub use telling::{Bus, Telling};
pub use watching::Watching;

use text::{Vars, address, nearest};

/// Settings of one application process.
#[derive(Clone, Debug)]
pub struct Config {
    /// `INSULA_LISTEN`: where requests come in. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// `INSULA_ADMIN_LISTEN`: health and metrics, on a thread of their own. Default `127.0.0.1:0`.
    pub admin_listen: SocketAddr,
    /// `INSULA_TENANCY`: for many customers (`on`, the default), or for one on its own server (`off`).
    pub tenancy: Tenancy,
    /// `INSULA_ADMISSION`: a TOML file of what this process admits, with the fields of a gateway's `[admission]`. Behind a gateway, rates are left to
    /// it. Default: no classes of routes, limits that suit a few cores.
    pub admission: AdmissionConfig,
    /// What it notices of its tenants.
    pub watching: Watching,
    /// What it remembers for its tenants: `INSULA_CACHE_BYTES`, `INSULA_CACHE_TTL`, `INSULA_CACHE_URL`.
    pub caching: CacheConfig,
    /// Whom it tells of events.
    pub telling: Telling,
    /// Where it keeps objects: `INSULA_STORE`.
    pub store: Store,
    /// What the application brings along when it runs for one customer.
    pub brings: Option<Brings>,
}

/// For whom the process is.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Tenancy {
    /// Many customers: the catalog knows them.
    On(Many),
    /// One, on its own server: no gateway, no control plane, no catalog.
    Off(Alone),
}

/// What an application needs to prepare a database by itself. Elsewhere the control plane has it.
#[derive(Clone, Debug)]
pub struct Brings {
    /// Its migrations and its seed.
    pub bundle: Bundle,
    /// The features that a customer on its own server has, unless `INSULA_FEATURES` says otherwise.
    pub features: Features,
}

/// Why the settings do not do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A setting without which nothing works.
    #[error("{name} is not set: {what}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What it is for, with an example.
        what: &'static str,
    },
    /// A setting that cannot be read.
    #[error("{name} is wrong: {reason}")]
    Wrong {
        /// The variable.
        name: &'static str,
        /// What would be right.
        reason: String,
    },
    /// A name nobody reads: a typing error would otherwise pass for a setting.
    #[error("{name} is not a setting{}", nearest.map(|near| format!(": did you mean {near}?")).unwrap_or_default())]
    Unknown {
        /// The variable.
        name: String,
        /// The known name closest to it.
        nearest: Option<&'static str>,
    },
}

const TENANCY: &str = "INSULA_TENANCY";
const LISTEN: &str = "INSULA_LISTEN";
const ADMIN_LISTEN: &str = "INSULA_ADMIN_LISTEN";
/// Settings of other programs of the house, which may stand in the same environment.
const OTHERS: &[&str] =
    &["INSULA_DATA", "INSULA_URL", "INSULA_KEY", "INSULA_LOG", "INSULA_LOG_FORMAT", "INSULA_PARENT_PID", "INSULA_PG_BIN"];

/// Every setting of ours.
fn ours() -> impl Iterator<Item = &'static str> {
    [TENANCY, LISTEN, ADMIN_LISTEN]
        .into_iter()
        .chain(caching::NAMES.iter().copied())
        .chain(telling::NAMES.iter().copied())
        .chain(admission::NAMES.iter().copied())
        .chain(watching::NAMES.iter().copied())
        .chain(store::NAMES.iter().copied())
        .chain(many::NAMES.iter().copied())
        .chain(alone::NAMES.iter().copied())
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// [`ConfigError`] that names the variable.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// Reads these variables; those that do not start with `INSULA_` are somebody else's.
    ///
    /// # Errors
    /// [`ConfigError`] that names the variable.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let vars: BTreeMap<_, _> =
            vars.into_iter().filter(|(name, value)| name.starts_with("INSULA_") && !value.is_empty()).collect();
        if let Some(name) = vars.keys().find(|name| !ours().any(|our| our == **name) && !OTHERS.contains(&name.as_str())) {
            return Err(ConfigError::Unknown { nearest: nearest(name, ours()), name: name.clone() });
        }
        let vars = Vars(&vars);
        let tenancy = match vars.get(TENANCY).unwrap_or("on") {
            "on" => Tenancy::On(Many::read(vars)?),
            "off" => Tenancy::Off(Alone::read(vars)?),
            other => return Err(text::wrong(TENANCY, format!("{other:?} is neither on nor off"))),
        };
        Ok(Self {
            listen: address(LISTEN, vars.get(LISTEN).unwrap_or("127.0.0.1:8080"))?,
            admin_listen: address(ADMIN_LISTEN, vars.get(ADMIN_LISTEN).unwrap_or("127.0.0.1:0"))?,
            tenancy,
            admission: admission::read(vars)?,
            watching: Watching::read(vars),
            caching: caching::read(vars)?,
            telling: telling::read(vars)?,
            store: Store::read(vars)?,
            brings: None,
        })
    }

    /// For many customers, by defaults that suit a process on this machine; ports as the system gives them.
    #[must_use]
    pub fn for_many(catalog_url: String, keyring: KeyRing) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: any,
            admin_listen: any,
            tenancy: Tenancy::On(Many::new(catalog_url, keyring)),
            admission: AdmissionConfig::default(),
            watching: Watching::default(),
            caching: CacheConfig::default(),
            telling: Telling::default(),
            store: Store::default(),
            brings: None,
        }
    }

    /// With what the application brings along, so that it can run for one customer, too. Many customers' databases are prepared by
    /// the control plane, from the same bundle.
    #[must_use]
    pub fn bringing(mut self, bundle: Bundle, features: Features) -> Self {
        self.brings = Some(Brings { bundle, features });
        self
    }
}

#[cfg(test)]
mod tests {
    use insula_core::FeatureValue;

    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_vars(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn faults_name_the_setting_and_the_remedy() {
        let says = |vars: &[(&str, &str)]| read(vars).expect_err("refused").to_string();
        assert!(says(&[]).starts_with("INSULA_CATALOG_URL is not set"));
        assert!(says(&[("INSULA_CATALOG_URL", "postgres://u:hunter2@h/c")]).starts_with("INSULA_KEYRING is not set"));
        assert_eq!(says(&[("INSULA_LISTNE", "x")]), "INSULA_LISTNE is not a setting: did you mean INSULA_LISTEN?");
        assert_eq!(says(&[("INSULA_FLUX_CAPACITOR", "x")]), "INSULA_FLUX_CAPACITOR is not a setting");
        let text = says(&[("INSULA_CATALOG_URL", "mysql://u:hunter2@h/c")]);
        assert!(text.contains("INSULA_CATALOG_URL is wrong") && !text.contains("hunter2"), "{text}");
        let text = says(&[("INSULA_CATALOG_URL", "postgres://u:p@h/c"), ("INSULA_KEYRING", "/nowhere/keys")]);
        assert!(text.contains("/nowhere/keys cannot be read"), "{text}");
    }

    #[test]
    fn defaults_suit_one_machine() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), format!(r#"{{"cells":{{"main":"{}"}}}}"#, "ab".repeat(32))).expect("written");
        let vars = [
            ("INSULA_CATALOG_URL", "postgres://u:hunter2@h/c"),
            ("INSULA_KEYRING", file.path().to_str().expect("a path")),
            ("PATH", "/bin"),
        ];
        let config = read(&vars).expect("reads");
        let Tenancy::On(many) = &config.tenancy else { panic!("for many") };
        assert_eq!((config.listen.to_string().as_str(), many.base_domain.as_str()), ("127.0.0.1:8080", "localhost"));
        assert_eq!(many.resolve, insula_http::ResolveOptions::default());
        assert!(!format!("{config:?}").contains("hunter2") && !format!("{config:?}").contains("abab"));
        let with = |more: &[(&str, &str)]| read(&[&vars, more].concat());
        let text = |more: &[(&str, &str)]| with(more).expect_err("refused").to_string();
        let Tenancy::On(many) =
            with(&[("INSULA_SOURCES", "header:x-t@/api, domain"), ("INSULA_FALLBACK_TENANT", "acme")]).expect("reads").tenancy
        else {
            panic!("for many")
        };
        assert_eq!((many.resolve.sources.len(), many.resolve.fallback.as_ref().map(|slug| slug.as_str())), (2, Some("acme")));
        let admission = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(admission.path(), "queue = 7\nlimits = 3\n").expect("written");
        let fault = text(&[("INSULA_ADMISSION", admission.path().to_str().expect("a path"))]);
        assert!(fault.starts_with("INSULA_ADMISSION is wrong") && fault.contains("line 2"), "{fault}");
        assert!(text(&[("INSULA_SOURCES", "hots")]).starts_with("INSULA_SOURCES is wrong: \"hots\" is no source"));
        assert!(text(&[("INSULA_JWKS_FILE", "/keys")]).starts_with("INSULA_CELL is not set"));
        assert!(text(&[("INSULA_DATABASE_URL", "postgres://h/d")]).contains("has no meaning with INSULA_TENANCY=on"));
        let Tenancy::On(many) = with(&[("INSULA_READ_STALENESS_MS", "250")]).expect("reads").tenancy else { panic!("for many") };
        assert_eq!(many.read_staleness.as_millis(), 250);
        assert!(text(&[("INSULA_READ_STALENESS_MS", "1s")]).contains("is not a number of milliseconds"));
        let caching = with(&[("INSULA_CACHE_TTL", "bronze=60, gold=600"), ("INSULA_CACHE_BYTES", "0")]).expect("reads").caching;
        assert_eq!((caching.capacity, caching.tiers["gold"].as_secs()), (0, 600));
        assert!(text(&[("INSULA_CACHE_TTL", "60")]).contains("TIER=SECONDS"));
        let url = text(&[("INSULA_CACHE_URL", "http://:hunter2@h")]);
        assert!(url.starts_with("INSULA_CACHE_URL is wrong") && !url.contains("hunter2"));
        let telling = with(&[("INSULA_WEBHOOK_PRIVATE", "on")]).expect("reads").telling;
        assert!(telling.webhook_private && telling.bus.is_none());
        assert!(text(&[("INSULA_WEBHOOK_PRIVATE", "1")]).contains("neither on nor off"));
        assert!(text(&[("INSULA_NATS_CA", "/ca.pem")]).contains("no meaning without INSULA_NATS_URL"));
        let nats = text(&[("INSULA_NATS_URL", "http://u:hunter2@h")]);
        assert!(nats.starts_with("INSULA_NATS_URL is wrong") && !nats.contains("hunter2"), "{nats}");
        assert!(text(&[("INSULA_TENANCY", "maybe")]).contains("neither on nor off"));
        assert_eq!(with(&[]).expect("reads").store, Store::Folder("insula-objects".into()));
        assert_eq!(with(&[("INSULA_STORE", "file:///var/objects")]).expect("reads").store, Store::Folder("/var/objects".into()));
        assert!(text(&[("INSULA_STORE", "ftp://h/x")]).contains("ftp:// is no store that this program knows"));
        let text = text(&[("INSULA_STORE", "s3://key:hunter2@bucket")]);
        assert!(text.contains("credentials belong into the environment") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn one_customer_needs_an_address_and_nothing_else() {
        let off = |more: &[(&str, &str)]| read(&[&[("INSULA_TENANCY", "off")], more].concat());
        let text = |more: &[(&str, &str)]| off(more).expect_err("refused").to_string();
        let config =
            off(&[("INSULA_DATABASE_URL", "postgres://owner:hunter2@db:5433/acme"), ("INSULA_FEATURES", "search=on,seats=3")]);
        let config = config.expect("reads");
        let Tenancy::Off(alone) = &config.tenancy else { panic!("for one") };
        assert_eq!((alone.address().as_str(), alone.owner, alone.features.len()), ("db:5433/acme", true, 2));
        assert!(!format!("{config:?}").contains("hunter2"));
        let brought = |search| [("search".to_owned(), search)].into();
        alone.fits(&brought(FeatureValue::Switch(false))).expect("a switch, as it is brought");
        let refused = alone.fits(&brought(FeatureValue::Number(1))).expect_err("of another type").to_string();
        assert!(refused.starts_with("INSULA_FEATURES is wrong: search is a whole number"), "{refused}");
        assert!(text(&[]).starts_with("INSULA_DATABASE_URL is not set"));
        for bad in ["mysql://u:hunter2@h/d", "postgres://u:hunter2@h", "hunter2", "postgres://u:hunter2@h/d?sslmode=perhaps"] {
            let text = text(&[("INSULA_DATABASE_URL", bad)]);
            assert!(text.starts_with("INSULA_DATABASE_URL is wrong") && !text.contains("hunter2"), "{text}");
        }
        let both = [("INSULA_DATABASE_URL", "postgres://h/d"), ("INSULA_CATALOG_URL", "postgres://h/c")];
        assert!(text(&both).contains("INSULA_CATALOG_URL is wrong: it has no meaning with INSULA_TENANCY=off"));
    }
}
