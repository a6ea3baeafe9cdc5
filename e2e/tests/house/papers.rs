//! Papers: links lead somewhere, the README's example is the compiled one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::tree;

/// Targets of Markdown links of a text, code blocks left out.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if !in_code {
            found.extend(line.match_indices("](").filter_map(|(at, _)| Some(line[at + 2..].split_once(')')?.0.to_owned())));
        }
    }
    found
}

#[test]
fn every_link_leads_to_a_file() {
    let mut complaints = Vec::new();
    for path in tree::files(&["md"]) {
        for link in links(&tree::text(&path))
            .iter()
            .filter(|link| !link.contains("://") && !link.starts_with('#') && !link.starts_with("mailto:"))
        {
            let target = link.split('#').next().unwrap_or(link);
            let folder = path.parent().unwrap_or_else(|| Path::new(""));
            if !tree::root().join(folder).join(target).exists() {
                complaints.push(format!("{}: {link} leads nowhere", path.display()));
            }
        }
    }
    tree::none(&complaints);
}

#[test]
fn examples_that_are_shown_are_those_that_compile() {
    for (page, example) in [
        ("README.md", "crates/sdk/examples/quickstart.rs"),
        ("docs/guides/application.md", "crates/sdk/examples/quickstart.rs"),
        ("docs/guides/application.md", "crates/sdk/examples/notes.rs"),
    ] {
        let (text, example_text) = (tree::text(Path::new(page)), tree::text(Path::new(example)));
        let shown: Vec<&str> = text.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        let compiled: Vec<&str> = example_text.lines().filter(|line| !line.starts_with("//!")).collect();
        let compiled = compiled.join("\n");
        assert!(
            shown.iter().any(|block| block.trim() == compiled.trim()),
            "no Rust block of {page} equals {example}:\n{compiled}"
        );
    }
}

#[test]
fn every_decision_has_a_number_of_its_own() {
    let decisions = tree::files(&["md"]).into_iter().filter(|path| path.starts_with("docs/decisions"));
    let mut taken = BTreeMap::new();
    let mut complaints = Vec::new();
    for path in decisions {
        let number: String = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().chars().take(4).collect();
        if !tree::text(&path).starts_with(&format!("# {number}: ")) {
            complaints.push(format!("{}: does not open with `# {number}: ` and its title", path.display()));
        }
        if let Some(other) = taken.insert(number, path.clone()) {
            complaints.push(format!("{} and {} have one number", path.display(), other.display()));
        }
    }
    tree::none(&complaints);
}

/// A guide that names a test which is gone proves nothing.
#[test]
fn the_tests_that_the_boundary_guide_names_are_there() {
    let guide = tree::text(Path::new("docs/guides/boundary.md"));
    let sources: String = tree::files(&["rs"]).iter().map(|path| tree::text(path)).collect();
    let rows = guide.lines().filter(|line| line.starts_with('|'));
    let codes = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let named: BTreeSet<&str> = codes.filter_map(|code| code.split_once(": ")).map(|(_, test)| test).collect();
    assert!(named.len() > 10, "the guide names no tests: {named:?}");
    let missing = named.iter().filter(|test| !sources.contains(&format!("fn {test}(")));
    tree::none(&missing.map(|test| format!("docs/guides/boundary.md: there is no test {test}")).collect::<Vec<_>>());
}
