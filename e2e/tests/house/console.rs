//! The console that is committed is the one that its sources build.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

use super::tree;

const SOURCES: &str = "console";
const BUILT: &str = "crates/control/console";
/// As `console/build/seal.ts` has it.
const LEFT_OUT: [&str; 4] = ["node_modules", ".gitignore", "README.md", "src/api/schema.gen.ts"];

fn sources(folder: &Path, found: &mut Vec<String>) {
    let root = tree::root().join(SOURCES);
    for entry in std::fs::read_dir(folder).expect("a readable folder").flatten() {
        let path = entry.path();
        let name = path.strip_prefix(&root).expect("below the sources").to_string_lossy().into_owned();
        if LEFT_OUT.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() { sources(&path, found) } else { found.push(name) }
    }
}

fn digest() -> String {
    let root = tree::root().join(SOURCES);
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    paths.sort();
    assert!(paths.len() > 20, "the console has sources: {paths:?}");
    let mut sum = Context::new(&SHA256);
    for path in paths {
        let content = std::fs::read(root.join(&path)).expect("a readable file");
        sum.update(format!("{path}\n{}\n", content.len()).as_bytes());
        sum.update(&content);
    }
    sum.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_console_was_built_from_its_sources() {
    let built = tree::text(Path::new(&format!("{BUILT}/sources.sha256")));
    assert_eq!(built.trim(), digest(), "the console's sources have changed: run `make console` and commit {BUILT}");
}

/// A file that is named by its content has that content, and what the page names is there.
#[test]
fn the_page_names_what_was_built() {
    let page = tree::text(Path::new(&format!("{BUILT}/index.html")));
    let named: Vec<&str> = page.split('"').skip(1).step_by(2).filter_map(|text| text.strip_prefix("/console/assets/")).collect();
    let folder = tree::root().join(BUILT).join("assets");
    let mut there: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("assets").flatten().map(|entry| PathBuf::from(entry.file_name())).collect();
    there.sort();
    let mut wanted: Vec<PathBuf> = named.iter().map(PathBuf::from).collect();
    wanted.sort();
    assert_eq!(wanted, there, "{BUILT}: left over, or missing");
}

/// Few, and each at one version that somebody chose.
#[test]
fn the_console_takes_exact_versions_of_few_packages() {
    let text = tree::text(Path::new("console/package.json"));
    let package: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for list in ["dependencies", "devDependencies"] {
        for (name, version) in package[list].as_object().expect("a list") {
            let version = version.as_str().unwrap_or_default();
            assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{name}: {version} is not one version");
        }
    }
    let embedded: Vec<&String> = package["dependencies"].as_object().expect("a list").keys().collect();
    assert_eq!(embedded, ["react", "react-dom"], "what operators' browsers run is said in decision 0074");
}
