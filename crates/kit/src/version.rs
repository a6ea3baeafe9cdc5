//! Which Postgres can hold the boundary.
//!
//! A server is refused when row security is known not to hold on it. The newest such fault decides the oldest minor version:
//! - CVE-2025-8713 (fixed in 13.22, 14.19, 15.14, 16.10, 17.6): planner statistics of rows that row security hides could be
//!   read through a leaky operator.
//! - CVE-2024-10976 (15.9, 16.5, 17.1): a plan made under one role was reused under another, with the wrong policies.
//! - CVE-2023-39418 (15.4): MERGE did not enforce UPDATE and SELECT policies.
//! - CVE-2023-2455 (15.3): inlined functions kept the policies of another role.
//!
//! 15 is the oldest major version for `GRANT SET ON PARAMETER`, `security_invoker` views and `ON DELETE SET NULL (column)`.

use sqlx::PgConnection;

use crate::error::Error;

/// A server's version as `server_version_num` counts: major, minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 15, 16, ...
    pub major: i32,
    /// The minor release.
    pub minor: i32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The first minor release of each major version without a known hole in row security.
const FLOOR: [Version; 3] = [Version { major: 15, minor: 14 }, Version { major: 16, minor: 10 }, Version { major: 17, minor: 6 }];

impl Version {
    /// Why this version cannot hold the boundary, if it cannot.
    #[must_use]
    pub fn refusal(self) -> Option<String> {
        if self.major < 15 {
            return Some("the boundary needs GRANT SET ON PARAMETER and security_invoker views: 15.14 or newer".to_owned());
        }
        let floor = FLOOR.into_iter().find(|f| f.major == self.major)?;
        (self < floor).then(|| {
            format!("row security leaks hidden rows through planner statistics (CVE-2025-8713): upgrade to {floor} or newer")
        })
    }
}

/// Reads the server's version and refuses one that cannot hold the boundary.
///
/// # Errors
/// [`Error::Version`] with the reason and the remedy.
pub async fn check_version(conn: &mut PgConnection) -> Result<Version, Error> {
    let number: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int").fetch_one(conn).await?;
    let version = Version { major: number / 10_000, minor: number % 10_000 };
    match version.refusal() {
        Some(reason) => Err(Error::Version { found: version.to_string(), reason }),
        None => Ok(version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_holed_versions_are_refused_with_the_reason() {
        let refusal = |major, minor| Version { major, minor }.refusal();
        assert!(refusal(14, 30).is_some_and(|r| r.contains("15.14")));
        assert!(refusal(15, 13).is_some_and(|r| r.contains("CVE-2025-8713")));
        assert!(refusal(16, 9).is_some_and(|r| r.contains("16.10")));
        assert!(refusal(17, 5).is_some_and(|r| r.contains("17.6")));
        for (major, minor) in [(15, 14), (15, 20), (16, 10), (17, 6), (18, 0)] {
            assert_eq!(refusal(major, minor), None, "{major}.{minor}");
        }
    }
}
