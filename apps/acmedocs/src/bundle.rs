//! What the control plane needs to make a customer's tables and first rows by itself.

use insula::{Bundle, Migration};

/// AcmeDocs' migrations and seed.
#[must_use]
pub fn bundle() -> Bundle {
    let all = [
        (1, "documents", include_str!("../migrations/0001_documents.sql")),
        (2, "exports", include_str!("../migrations/0002_exports.sql")),
        (3, "digests", include_str!("../migrations/0003_digests.sql")),
        (4, "export removals", include_str!("../migrations/0004_export_removals.sql")),
    ];
    Bundle {
        migrations: all.map(|(version, name, sql)| Migration { version, name: name.to_owned(), sql: sql.to_owned() }).into(),
        seed: include_str!("../migrations/seed.sql").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_count_up_and_the_seed_is_one_statement() {
        let bundle = super::bundle();
        assert!(bundle.migrations.iter().zip(1..).all(|(migration, n)| migration.version == n));
        let seed: String = bundle.seed.lines().filter(|line| !line.starts_with("--")).collect();
        assert!(!seed.contains(';'));
    }
}
