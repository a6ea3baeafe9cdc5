//! Sources: size, opening words, names, forbidden words, metric labels.

use std::path::Path;

use insula_telemetry::budget::FORBIDDEN_LABELS;

use super::tree;

const LINES: usize = 600;

#[test]
fn no_file_is_longer_than_a_room() {
    let long = |path: &Path| {
        let lines = tree::text(path).lines().count();
        (lines > LINES).then(|| format!("{}: {lines} lines; at {LINES} a file wants two rooms", path.display()))
    };
    tree::none(&tree::files(&["rs", "sql", "py", "sh"]).iter().filter_map(|path| long(path)).collect::<Vec<_>>());
}

#[test]
fn every_module_opens_with_what_it_is_for() {
    // Examples are shown as they are.
    let modules = tree::files(&["rs"]).into_iter().filter(|path| !path.iter().any(|part| part == "examples"));
    let silent = modules.filter(|path| !tree::text(path).starts_with("//!"));
    tree::none(&silent.map(|path| format!("{}: the first line is not `//!`", path.display())).collect::<Vec<_>>());
}

#[test]
fn files_are_named_by_nouns_of_the_domain() {
    const DRAWERS: &[&str] = &["util", "utils", "helper", "helpers", "manager", "service", "services", "misc", "common", "stuff"];
    let named = |path: &Path| {
        let stem = path.file_stem()?.to_str()?.to_lowercase();
        let folder = path.parent()?.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_lowercase();
        DRAWERS
            .iter()
            .any(|drawer| stem == *drawer || folder == *drawer)
            .then(|| format!("{}: says nothing of what is in it", path.display()))
    };
    tree::none(&tree::files(&["rs", "sql", "md", "toml"]).iter().filter_map(|path| named(path)).collect::<Vec<_>>());
}

#[test]
fn nothing_unfinished_and_no_machine_of_ours() {
    // Written in two halves, so that this file does not hold them itself.
    let words = [["TO", "DO"], ["FIX", "ME"], ["todo", "!("], ["unimplemented", "!("], ["/wo", "rk/"], ["/ro", "ot/"]]
        .map(|halves| halves.concat());
    let mut complaints = Vec::new();
    for path in tree::files(&["rs", "sql", "md", "toml", "sh", "json", "yml", "yaml"]) {
        for (number, line) in tree::text(&path).lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                complaints.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    tree::none(&complaints);
}

#[test]
fn the_application_has_no_tenant_in_its_queries() {
    let mut complaints = Vec::new();
    let sources = tree::files(&["rs", "sql", "html"]).into_iter().filter(|path| path.starts_with("apps"));
    // Tests look for it.
    for path in sources.filter(|path| !path.iter().any(|part| part == "tests")) {
        for (number, line) in tree::text(&path).lines().enumerate().filter(|(_, line)| line.contains("tenant_id")) {
            complaints.push(format!(
                "{}:{}: {}: the boundary puts the tenant in, the application never",
                path.display(),
                number + 1,
                line.trim()
            ));
        }
    }
    tree::none(&complaints);
}

/// The recorder refuses such labels when a process runs; this finds them before.
#[test]
fn no_metric_has_a_label_that_names_somebody() {
    let mut complaints = Vec::new();
    for path in tree::files(&["rs"]) {
        // The budget's own tests try to.
        if path.ends_with("telemetry/src/budget.rs") {
            continue;
        }
        let text = tree::text(&path);
        for recorded in ["counter!(", "gauge!(", "histogram!("] {
            for (at, _) in text.match_indices(recorded) {
                let call = &text[at..at + text[at..].find(';').unwrap_or(text.len() - at)];
                for label in FORBIDDEN_LABELS.iter().filter(|label| call.contains(&format!("\"{label}\" =>"))) {
                    let line = text[..at].lines().count();
                    complaints.push(format!("{}:{line}: a metric with the label `{label}`", path.display()));
                }
            }
        }
    }
    tree::none(&complaints);
}
