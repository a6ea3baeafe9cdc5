//! A tenant's life, seen from outside, and how it wants to appear.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// The state of a tenant. Work is done for `Active` tenants only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TenantState {
    /// Being made; not yet reachable.
    Provisioning,
    /// At work.
    Active,
    /// Paused by the host side; nothing is lost, nothing is served.
    Suspended,
    /// Disabled for good; its data waits for erasure.
    Deleted,
}

impl TenantState {
    /// As the catalog writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deleted => "deleted",
        }
    }

    /// Reads what [`TenantState::as_str`] wrote.
    #[must_use]
    pub fn from_name(text: &str) -> Option<Self> {
        [Self::Provisioning, Self::Active, Self::Suspended, Self::Deleted].into_iter().find(|s| s.as_str() == text)
    }
}

/// Why a setting was refused; says what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct SettingError {
    /// What would be accepted, with an example.
    wanted: &'static str,
    /// What came.
    text: String,
}

macro_rules! setting {
    ($(#[$doc:meta])* $name:ident, $wanted:literal, $holds:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $name(SmolStr);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = SettingError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let holds: fn(&str) -> bool = $holds;
                if holds(text) { Ok(Self(text.into())) } else { Err(SettingError { wanted: $wanted, text: text.into() }) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = SettingError;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

setting! {
    /// The name that a tenant shows to its users: one line of text, 1 to 80 characters.
    BrandName, "a brand name (one line, 1 to 80 characters)",
    |t| (1..=80).contains(&t.chars().count()) && !t.chars().any(char::is_control) && t.trim() == t
}
setting! {
    /// A colour as CSS writes it: `#rrggbb`. Nothing else, so that it can stand in a style sheet.
    Color, "a colour like #1a2b3c",
    |t| t.len() == 7 && t.strip_prefix('#').is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}
setting! {
    /// A language tag (BCP 47, the shape of RFC 5646: `en`, `de-AT`, `zh-Hant-TW`); whether the language exists is not checked.
    Locale, "a language tag like en or de-AT",
    |t| {
        let mut parts = t.split('-');
        t.len() <= 35
            && parts.next().is_some_and(|p| (2..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphabetic()))
            && parts.all(|p| (1..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric()))
    }
}
setting! {
    /// A time zone's name as IANA writes it (`UTC`, `Europe/Vienna`, `Etc/GMT+5`): its shape is checked, not its existence.
    TimeZone, "a time zone like UTC or Europe/Vienna",
    |t| {
        t.len() <= 64
            && t.split('/').count() <= 3
            && t.split('/').all(|p| {
                p.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
                    && p.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-'))
            })
    }
}

impl Default for Locale {
    fn default() -> Self {
        Self(SmolStr::new_static("en"))
    }
}

impl Default for TimeZone {
    fn default() -> Self {
        Self(SmolStr::new_static("UTC"))
    }
}

/// How a tenant wants to appear: `catalog.tenant.settings`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TenantSettings {
    /// The name shown to its users; the tenant's own name when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brand_name: Option<BrandName>,
    /// The colour of its pages; the application's choice when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color: Option<Color>,
    /// The language of its pages.
    pub locale: Locale,
    /// The time zone in which its times are shown.
    pub time_zone: TimeZone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_defaults_and_refuse_what_they_do_not_know() {
        let read = |json: &str| serde_json::from_str::<TenantSettings>(json);
        assert_eq!(read("{}").unwrap(), TenantSettings::default());
        assert_eq!(serde_json::to_string(&TenantSettings::default()).unwrap(), r#"{"locale":"en","time_zone":"UTC"}"#);
        let all = r##"{"brand_name":"Acme & Söhne","color":"#1A2b3c","locale":"de-AT","time_zone":"Etc/GMT+5"}"##;
        assert_eq!(serde_json::to_string(&read(all).unwrap()).unwrap(), all);
        for bad in [
            r#"{"colour":"x"}"#,
            r#"{"color":"red"}"#,
            r##"{"color":"#12345é"}"##,
            r#"{"locale":""}"#,
            r#"{"locale":"e"}"#,
            r#"{"locale":"de_AT"}"#,
            r#"{"time_zone":""}"#,
            r#"{"time_zone":"../etc/passwd"}"#,
            r#"{"time_zone":"Europe/"}"#,
            r#"{"brand_name":""}"#,
            r#"{"brand_name":"a
b"}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
