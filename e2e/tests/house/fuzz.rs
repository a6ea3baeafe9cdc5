//! Fuzz targets need another compiler; what they run is compiled and tried by the ordinary tests.

use super::tree;

#[test]
fn each_fuzz_target_runs_a_body_that_the_tests_run_too() {
    let tests = tree::text("crates/http/tests/it/fuzz.rs".as_ref());
    let manifest = tree::text("fuzz/Cargo.toml".as_ref());
    let files = tree::files(&["rs"]);
    let named = |folder: &str| {
        let of = |file: &std::path::PathBuf| {
            let name = file.strip_prefix(folder).ok()?.to_str()?.strip_suffix(".rs")?;
            Some(name.to_owned())
        };
        files.iter().filter_map(of).collect::<std::collections::BTreeSet<_>>()
    };
    let (targets, bodies) = (named("fuzz/fuzz_targets"), named("fuzz/bodies"));
    assert!(targets.len() >= 4, "{targets:?}");
    assert_eq!(targets, bodies);
    for name in &targets {
        let target = format!(
            "//! See `bodies/{name}.rs`.\n#![no_main]\n\n#[path = \"../bodies/{name}.rs\"]\nmod body;\n\n\
             libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));\n"
        );
        assert_eq!(tree::text(format!("fuzz/fuzz_targets/{name}.rs").as_ref()), target, "{name} does something of its own");
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")), "{name} is no target");
        assert!(
            tests.contains(&format!("fuzz/bodies/{name}.rs")) && tests.contains(&format!("{name}::run(")),
            "{name} is not tried"
        );
    }
}
