//! Features: named, typed values that a plan sets and a tenant may override, for good or until a time.
//!
//! An application declares what it asks for, once, with the value that is safe when nobody has said anything:
//!
//! ```
//! use insula_core::Feature;
//! const SEARCH: Feature<bool> = Feature::new("search", false);
//! const EXPORTS: Feature<i64> = Feature::new("max_concurrent_exports", 0);
//! ```
//!
//! Always: what is not known, or is of another type, counts as the safe value; what has run out counts as if it had never been.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::plan::Plan;

/// One feature's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum FeatureValue {
    /// A switch.
    Switch(bool),
    /// A number (a count, a size).
    Number(i64),
    /// A word.
    Word(String),
}

/// Features by name.
pub type Features = BTreeMap<String, FeatureValue>;

impl FeatureValue {
    /// Whether the feature grants anything: `false`, 0 and "" do not.
    #[must_use]
    pub fn is_on(&self) -> bool {
        match self {
            Self::Switch(on) => *on,
            Self::Number(n) => *n > 0,
            Self::Word(w) => !w.is_empty(),
        }
    }
}

/// What one tenant has instead of its plan's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Override {
    /// For good.
    Value(FeatureValue),
    /// For a time.
    Temporary(Temporary),
}

/// A value that ends, and the plan's own with which it goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Temporary {
    /// The value.
    pub value: FeatureValue,
    /// From then on, the plan's value holds again.
    pub until: DateTime<Utc>,
}

/// A tenant's overrides, by the feature's name.
pub type Overrides = BTreeMap<String, Override>;

impl Override {
    /// The value, while it lasts.
    #[must_use]
    pub const fn value(&self) -> &FeatureValue {
        match self {
            Self::Value(value) | Self::Temporary(Temporary { value, .. }) => value,
        }
    }

    /// When it ends, if it does.
    #[must_use]
    pub const fn until(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Value(_) => None,
            Self::Temporary(temporary) => Some(temporary.until),
        }
    }
}

impl From<FeatureValue> for Override {
    fn from(value: FeatureValue) -> Self {
        Self::Value(value)
    }
}

/// A type that a feature may have: a switch (`bool`), a number (`i64`), a word (`&str`).
pub trait FeatureType: Copy + 'static {
    /// As it is read from a plan.
    type Read<'a>: Copy + PartialEq + std::fmt::Debug;

    /// The value, when it is of this type.
    fn read(value: &FeatureValue) -> Option<Self::Read<'_>>;

    /// A declared value as if it had been read.
    fn declared<'a>(self) -> Self::Read<'a>;

    /// Whether the value grants anything.
    fn is_on(read: Self::Read<'_>) -> bool;
}

impl FeatureType for bool {
    type Read<'a> = Self;

    fn read(value: &FeatureValue) -> Option<Self> {
        if let FeatureValue::Switch(on) = value { Some(*on) } else { None }
    }

    fn declared<'a>(self) -> Self::Read<'a> {
        self
    }

    fn is_on(read: Self) -> bool {
        read
    }
}

impl FeatureType for i64 {
    type Read<'a> = Self;

    fn read(value: &FeatureValue) -> Option<Self> {
        if let FeatureValue::Number(n) = value { Some(*n) } else { None }
    }

    fn declared<'a>(self) -> Self::Read<'a> {
        self
    }

    fn is_on(read: Self) -> bool {
        read > 0
    }
}

impl FeatureType for &'static str {
    type Read<'a> = &'a str;

    fn read(value: &FeatureValue) -> Option<&str> {
        if let FeatureValue::Word(word) = value { Some(word) } else { None }
    }

    fn declared<'a>(self) -> &'a str {
        self
    }

    fn is_on(read: &str) -> bool {
        !read.is_empty()
    }
}

/// What an application asks for: a name, a type, and what holds when nobody says.
#[derive(Clone, Copy, Debug)]
pub struct Feature<T> {
    name: &'static str,
    safe: T,
}

impl<T> Feature<T> {
    /// Declares a feature. `safe` is what an application can answer for without anybody's word: mostly `false`, 0 or "".
    #[must_use]
    pub const fn new(name: &'static str, safe: T) -> Self {
        Self { name, safe }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<T: FeatureType> Feature<T> {
    /// Its value in a tenant's plan at this moment.
    #[must_use]
    pub fn of<'a>(&self, plan: &'a Plan, clock: &impl Clock) -> T::Read<'a> {
        plan.feature(self.name, clock).and_then(T::read).unwrap_or_else(|| self.safe.declared())
    }

    /// Whether it grants anything.
    #[must_use]
    pub fn is_on(&self, plan: &Plan, clock: &impl Clock) -> bool {
        T::is_on(self.of(plan, clock))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isolation, Limits, Tier};

    const SEARCH: Feature<bool> = Feature::new("search", false);
    const EXPORTS: Feature<i64> = Feature::new("exports", 0);
    const REGION: Feature<&str> = Feature::new("region", "nowhere");

    struct At(i64);

    impl Clock for At {
        fn unix_seconds(&self) -> i64 {
            self.0
        }
    }

    fn plan(features: &str, temporary: &str) -> Plan {
        Plan {
            name: "gold".parse().unwrap(),
            tier: Tier { name: "gold".into(), weight: 1, pool_guarantee: 0, pool_cap: 100 },
            isolation: Isolation::Row,
            limits: Limits::default(),
            features: serde_json::from_str(features).unwrap(),
            temporary: serde_json::from_str(temporary).unwrap(),
        }
    }

    #[test]
    fn what_is_unknown_or_of_another_type_is_the_safe_value() {
        let all = plan(r#"{"search":true,"exports":3,"region":"eu"}"#, "{}");
        assert_eq!((SEARCH.of(&all, &At(0)), EXPORTS.of(&all, &At(0)), REGION.of(&all, &At(0))), (true, 3, "eu"));
        for other in ["{}", r#"{"search":1,"exports":"many","region":true}"#] {
            let other = plan(other, "{}");
            assert_eq!((SEARCH.of(&other, &At(0)), EXPORTS.of(&other, &At(0)), REGION.of(&other, &At(0))), (false, 0, "nowhere"));
        }
    }

    #[test]
    fn what_has_run_out_is_as_if_it_had_never_been() {
        let until = r#"{"search":{"value":true,"until":"1970-01-01T00:01:40Z"},"exports":{"value":"odd","until":"1970-01-01T00:01:40Z"}}"#;
        let trial = plan(r#"{"search":false,"exports":3}"#, until);
        assert_eq!((SEARCH.of(&trial, &At(99)), SEARCH.of(&trial, &At(100))), (true, false));
        assert_eq!((EXPORTS.of(&trial, &At(99)), EXPORTS.of(&trial, &At(100))), (0, 3), "a wrong type is no reason to fall back");
        assert!(!SEARCH.is_on(&plan("{}", until), &At(100)));
    }

    #[test]
    fn overrides_are_values_or_values_that_end() {
        let text = r#"{"a":true,"b":{"value":3,"until":"2030-01-01T00:00:00Z"},"c":"word"}"#;
        let read: Overrides = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(read.get("b").map(|b| (b.value().clone(), b.until().is_some())), Some((FeatureValue::Number(3), true)));
        for bad in [
            r#"{"a":null}"#,
            r#"{"a":{"value":1}}"#,
            r#"{"a":{"value":1,"until":"soon"}}"#,
            r#"{"a":{"value":1,"until":"2030-01-01T00:00:00Z","x":1}}"#,
            r#"{"a":1.5}"#,
        ] {
            assert!(serde_json::from_str::<Overrides>(bad).is_err(), "{bad}");
        }
    }
}
