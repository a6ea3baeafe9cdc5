//! A test server with TLS, and the authority that vouches for it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::server::TestServer;

/// Signs certificates of test servers.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: tempfile::NamedTempFile,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.file().display())
    }
}

impl Authority {
    /// One that nobody knows yet.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), issuer.pem()).expect("written");
        Self { issuer, file }
    }

    /// A certificate for a host name, and its key, as PEM.
    #[must_use]
    pub fn vouch(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }

    /// The PEM file with its certificate; it goes when this does.
    #[must_use]
    pub fn file(&self) -> &Path {
        self.file.path()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl TestServer {
    /// Turns TLS on, with a certificate for this host name.
    pub async fn turn_tls_on(&self, authority: &Authority, host: &str) {
        let (certificate, key) = authority.vouch(host);
        let mut admin = self.admin("postgres").await;
        let folder: String = sqlx::query_scalar("SHOW data_directory").fetch_one(&mut admin).await.expect("its folder");
        // Written by the server itself, so that the files are its account's.
        for (name, pem) in [("server.crt", certificate), ("server.key", key)] {
            let path = format!("{folder}/{name}");
            let lines = pem.trim().replace('\n', "','");
            run(&mut admin, format!("COPY (SELECT unnest(ARRAY['{lines}'])) TO '{path}'")).await;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("closed");
        }
        run(&mut admin, "ALTER SYSTEM SET ssl = on".to_owned()).await;
        run(&mut admin, "SELECT pg_reload_conf()".to_owned()).await;
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let mut fresh = self.admin("postgres").await;
            let on: String = sqlx::query_scalar("SHOW ssl").fetch_one(&mut fresh).await.expect("a setting");
            if on == "on" {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "the server does not turn TLS on: see its log");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

async fn run(admin: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(admin).await.expect("run");
}
