//! The guide shows every setting, and nothing that there is not.

use std::collections::BTreeSet;

use insula_gateway::Config;
use toml::{Table, Value};

/// `catalog.soft_ms`, …
fn names(table: &Table, before: &str, into: &mut BTreeSet<String>) {
    for (name, value) in table {
        let name = format!("{before}{name}");
        match value {
            Value::Table(inner) => names(inner, &format!("{name}."), into),
            Value::Array(items) if items.iter().all(Value::is_table) && !items.is_empty() => {
                items.iter().filter_map(Value::as_table).for_each(|inner| names(inner, &format!("{name}."), into));
            }
            _ => drop(into.insert(name)),
        }
    }
}

#[test]
fn the_guide_has_the_whole_file() {
    let guide = include_str!("../../../../docs/guides/gateway.md");
    let shown = guide.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a TOML block");
    // Unknown names are refused here.
    let config: Config = toml::from_str(shown).unwrap_or_else(|error| panic!("docs/guides/gateway.md: {error}"));
    let (mut written, mut known) = (BTreeSet::new(), BTreeSet::new());
    names(&shown.parse().expect("TOML"), "", &mut written);
    // What is not written takes its default, and shows up here.
    names(&toml::Table::try_from(&config).expect("TOML"), "", &mut known);
    let missing: Vec<_> = known.difference(&written).collect();
    assert!(missing.is_empty(), "docs/guides/gateway.md does not show {missing:?}");
    // Settings that have no default are absent from that when they are not written: so each is looked for.
    let absent = format!("{config:?}").matches("None").count();
    assert_eq!(absent, 1, "one alone is left out, as an alternative (postgres_url_file): {config:?}");
    assert!(shown.contains("# postgres_url_file = "));
}

#[test]
fn the_guide_tells_the_defaults() {
    let guide = include_str!("../../../../docs/guides/gateway.md");
    let shown = guide.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a TOML block");
    let config: Config = toml::from_str(shown).expect("TOML");
    let default = Config::default();
    assert_eq!(format!("{:?}", config.timeouts), format!("{:?}", default.timeouts));
    assert_eq!(format!("{:?}", config.limits), format!("{:?}", default.limits));
    assert_eq!(format!("{:?}", config.moves), format!("{:?}", default.moves));
    assert_eq!((config.resolve.sources, config.resolve.unknown), (default.resolve.sources, default.resolve.unknown));
    assert_eq!((config.admission.limit, config.admission.breaker), (default.admission.limit, default.admission.breaker));
}
