//! Crates keep to the edges of `floors.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::{Table, Value};

use super::tree;

struct Crate {
    /// Edges of the crate itself: dependencies and build-dependencies, ours and others'.
    uses: BTreeSet<String>,
    /// Edges of its tests.
    dev: BTreeSet<String>,
}

fn crates() -> BTreeMap<String, Crate> {
    let mut crates = BTreeMap::new();
    for path in tree::files(&["toml"]).into_iter().filter(|path| path.ends_with("Cargo.toml") && path != Path::new("Cargo.toml"))
    {
        let manifest: Table = tree::text(&path).parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let name = manifest["package"]["name"].as_str().expect("a name").to_owned();
        let edges = |section: &str| keys(&manifest, section);
        let (mut uses, dev) = (edges("dependencies"), edges("dev-dependencies"));
        uses.extend(edges("build-dependencies"));
        crates.insert(name, Crate { uses, dev });
    }
    crates
}

fn keys(manifest: &Table, section: &str) -> BTreeSet<String> {
    let own = manifest.get(section).and_then(Value::as_table);
    let targets = manifest
        .get("target")
        .and_then(Value::as_table)
        .into_iter()
        .flat_map(Table::values)
        .filter_map(|t| t.get(section)?.as_table());
    let names = own.into_iter().chain(targets).flat_map(Table::iter);
    // A renamed dependency counts under its own name.
    names.map(|(key, value)| value.get("package").and_then(Value::as_str).unwrap_or(key).to_owned()).collect()
}

fn floors() -> Table {
    tree::text(Path::new("floors.toml")).parse().expect("floors.toml is TOML")
}

fn listed(floors: &Table) -> BTreeMap<String, (i64, BTreeSet<String>)> {
    let crates = floors["crates"].as_table().expect("[crates]");
    crates
        .iter()
        .map(|(name, entry)| {
            let floor = entry["floor"].as_integer().expect("a floor");
            let uses = entry["uses"].as_array().expect("uses").iter().map(|v| v.as_str().expect("a name").to_owned());
            (name.clone(), (floor, uses.collect()))
        })
        .collect()
}

#[test]
fn the_map_names_every_crate_and_no_other() {
    let map: BTreeSet<String> = listed(&floors()).into_keys().collect();
    let there: BTreeSet<String> = crates().into_keys().collect();
    assert_eq!(there, map, "floors.toml and the workspace differ");
}

#[test]
fn every_allowed_edge_leads_down() {
    let map = listed(&floors());
    let mut complaints = Vec::new();
    for (name, (floor, uses)) in &map {
        for used in uses {
            match map.get(used) {
                Some((below, _)) if below < floor => {}
                Some((below, _)) => {
                    complaints.push(format!("{name} (floor {floor}) must not use {used} (floor {below}): edges lead down"))
                }
                None => complaints.push(format!("{name} may use {used}, which is not a crate of ours")),
            }
        }
    }
    tree::none(&complaints);
}

#[test]
fn crates_use_only_what_they_may() {
    let map = listed(&floors());
    let mut complaints = Vec::new();
    for (name, found) in crates() {
        let Some((floor, allowed)) = map.get(&name) else { continue };
        for used in found.uses.iter().filter(|used| map.contains_key(*used) && !allowed.contains(*used)) {
            complaints.push(format!("{name} uses {used}: not an edge of floors.toml"));
        }
        // Tests stand on the testkit, and may use what it stands on.
        let testkit = map["insula-testkit"].0;
        for used in &found.dev {
            if map.get(used).is_some_and(|(below, _)| below > &testkit && below >= floor) {
                complaints.push(format!("tests of {name} use {used}, which is neither below it nor below the testkit"));
            }
        }
    }
    tree::none(&complaints);
}

#[test]
fn reserved_crates_have_their_users_alone() {
    let floors = floors();
    let mut complaints = Vec::new();
    for (reserved, users) in floors["reserved"].as_table().expect("[reserved]") {
        let users: BTreeSet<&str> = users.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        for (name, _) in crates().iter().filter(|(name, found)| found.uses.contains(reserved) && !users.contains(name.as_str())) {
            complaints.push(format!("{name} uses {reserved}, which is reserved to {users:?} (floors.toml)"));
        }
    }
    tree::none(&complaints);
}

#[test]
fn the_application_knows_the_sdk_alone() {
    let app = &crates()["acmedocs"];
    let ours: Vec<_> = app.uses.iter().filter(|used| used.starts_with("insula")).collect();
    assert_eq!(ours, ["insula"]);
}
