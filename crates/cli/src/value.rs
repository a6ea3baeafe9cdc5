//! Values as they are written on a command line.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use insula_core::{FeatureValue, Isolation, TenantState};

/// `row`, `schema`, `database` or `cell`.
pub(crate) fn isolation() -> impl TypedValueParser<Value = Isolation> {
    PossibleValuesParser::new(Isolation::ALL.map(Isolation::as_str))
        .try_map(|text| Isolation::from_name(&text).ok_or("no isolation"))
}

/// A tenant's state.
pub(crate) fn state() -> impl TypedValueParser<Value = TenantState> {
    PossibleValuesParser::new(["provisioning", "active", "suspended", "deleted"])
        .try_map(|text| TenantState::from_name(&text).ok_or("no state"))
}

/// `name=value`: a switch, a number or a word.
pub(crate) fn feature(text: &str) -> Result<(String, FeatureValue), String> {
    let (name, value) = pair(text)?;
    let value = match (value, value.parse()) {
        ("true" | "on", _) => FeatureValue::Switch(true),
        ("false" | "off", _) => FeatureValue::Switch(false),
        (_, Ok(number)) => FeatureValue::Number(number),
        (word, Err(_)) => FeatureValue::Word(word.to_owned()),
    };
    Ok((name.to_owned(), value))
}

/// `name=number`.
pub(crate) fn limit(text: &str) -> Result<(String, u64), String> {
    let (name, value) = pair(text)?;
    Ok((name.to_owned(), value.parse().map_err(|_| format!("{value:?} is not a whole number"))?))
}

fn pair(text: &str) -> Result<(&str, &str), String> {
    text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| "write NAME=VALUE".to_owned())
}

/// A feature's value as [`feature`] reads it.
pub(crate) fn word(value: &FeatureValue) -> String {
    match value {
        FeatureValue::Switch(on) => on.to_string(),
        FeatureValue::Number(number) => number.to_string(),
        FeatureValue::Word(word) => word.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_and_limits_are_read() {
        assert_eq!(feature("search=off"), Ok(("search".into(), FeatureValue::Switch(false))));
        assert_eq!(feature("exports=3"), Ok(("exports".into(), FeatureValue::Number(3))));
        assert_eq!(feature("theme=a=b"), Ok(("theme".into(), FeatureValue::Word("a=b".into()))));
        assert!(feature("=x").is_err() && feature("x").is_err());
        assert_eq!(limit("max_users=9"), Ok(("max_users".into(), 9)));
        assert!(limit("max_users=-1").is_err() && limit("max_users=all").is_err());
    }
}
