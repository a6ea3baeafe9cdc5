//! Names that people choose: tenant slugs, plan names, cell names.
//!
//! Up to 23 bytes they live in place: cloning one touches no shared counter, and a table of tenants finds the slug where it
//! looks at the tenant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Why a name was refused; says what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Too short or too long.
    #[error("{what} must have {min} to {max} characters, this one has {len}")]
    Length {
        /// What kind of name.
        what: &'static str,
        /// Fewest characters.
        min: usize,
        /// Most characters.
        max: usize,
        /// How many it has.
        len: usize,
    },
    /// A character or position that a DNS label does not allow.
    #[error("{what} may hold a-z, 0-9 and single hyphens between them; it may not hold {found:?}")]
    Character {
        /// What kind of name.
        what: &'static str,
        /// The first offence.
        found: String,
    },
    /// A name that the host side keeps for itself.
    #[error("{what} {name:?} is reserved: choose another")]
    Reserved {
        /// What kind of name.
        what: &'static str,
        /// The name.
        name: String,
    },
}

/// Labels that would collide with the provider's own hosts.
pub const RESERVED_SLUGS: &[&str] = &[
    "admin",
    "api",
    "app",
    "auth",
    "cdn",
    "console",
    "control",
    "dashboard",
    "dev",
    "docs",
    "gateway",
    "help",
    "host",
    "insula",
    "internal",
    "localhost",
    "login",
    "mail",
    "ns",
    "root",
    "static",
    "status",
    "support",
    "system",
    "test",
    "www",
];

fn check(what: &'static str, text: &str, min: usize, max: usize) -> Result<(), NameError> {
    let len = text.chars().count();
    if let Some(c) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return Err(NameError::Character { what, found: c.to_string() });
    }
    if len < min || len > max {
        return Err(NameError::Length { what, min, max, len });
    }
    // A double hyphen in third place would read as punycode (RFC 5891 4.2.3.1); none is allowed anywhere.
    for bad in ["--"] {
        if text.contains(bad) {
            return Err(NameError::Character { what, found: bad.into() });
        }
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(NameError::Character { what, found: "- at an end".into() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $min:literal, $max:literal, $reserved:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String, pattern = "^[a-z0-9]+(-[a-z0-9]+)*$")]
        pub struct $name(SmolStr);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check($what, text, $min, $max)?;
                let reserved: &[&str] = $reserved;
                if reserved.contains(&text) {
                    return Err(NameError::Reserved { what: $what, name: text.into() });
                }
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.to_string()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }
    };
}

name! {
    /// A tenant's DNS label: `acme` in `acme.example.com`. Lower case, 2 to 63 characters (RFC 1035).
    Slug, "a slug", 2, 63, RESERVED_SLUGS
}
name! {
    /// A plan's name: `bronze`.
    PlanName, "a plan name", 1, 40, &[]
}
name! {
    /// A cell's name: `main`, `eu-2`.
    CellName, "a cell name", 1, 40, &[]
}

name! {
    /// The name of a class of routes that limits tell apart: `export`, `search`.
    RouteClass, "a route class", 1, 40, &["default"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_dns_labels() {
        for good in ["acme", "a1", "a-b-c", "x".repeat(63).as_str()] {
            assert_eq!(good.parse::<Slug>().map(|s| s.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "a", "Acme", "-a", "a-", "a--b", "xn--abc", "a_b", "a.b", "é1", "a\0b", "a b", "www", &"x".repeat(64)] {
            assert!(bad.parse::<Slug>().is_err(), "{bad:?}");
        }
    }
}
