//! What the application must not know.

use std::path::{Path, PathBuf};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found
}

#[test]
fn no_tenant_in_business_code_or_sql() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["src", "migrations", "templates"].iter().flat_map(|folder| files(&home.join(folder))) {
        let text = std::fs::read_to_string(&file).unwrap();
        for (n, line) in text.lines().enumerate() {
            let place = format!("{}:{}: {line}", file.display(), n + 1);
            // The importer names the tenant whose host it calls; it is a client, not the application.
            assert!(
                !line.contains(concat!("tenant", "_id")) && !line.contains("TenantNo") && !line.contains("TenantId"),
                "{place}"
            );
            assert!(!line.contains("current_tenant") && !line.contains("insula.enter"), "{place}");
            let in_sql = file.extension().is_some_and(|kind| kind == "sql") && line.contains("tenant");
            assert!(!in_sql || line.trim_start().starts_with("SELECT insula.tenant_"), "{place}");
        }
    }
}
