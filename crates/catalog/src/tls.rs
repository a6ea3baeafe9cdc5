//! Why the way to a cell's database server is not secure, in words for its operator; and the authorities that make it so.
//!
//! For: whoever connects to cells. Not for: connecting. Always: names hosts and files, never a login.

use std::path::Path;

/// The setting that names the certificate authorities of cells' database servers, beside those of the web: a PEM file.
pub const AUTHORITIES: &str = "INSULA_CELL_CA";

/// Whether the file of authorities will do, before anybody connects with it.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn check_authorities(path: &Path) -> Result<(), String> {
    let text = std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    if String::from_utf8_lossy(&text).contains("-----BEGIN CERTIFICATE-----") {
        return Ok(());
    }
    Err(format!("{} holds no certificate: it is a PEM file of those that sign the database servers' own", path.display()))
}

/// What to do, when a connection failed for its TLS; nothing when it failed for something else.
#[must_use]
pub fn explain(error: &sqlx::Error, host: &str, port: u16) -> Option<String> {
    let detail = match error {
        sqlx::Error::Tls(inner) => inner.to_string(),
        // What rustls refuses comes out of its reading and writing.
        sqlx::Error::Io(inner) if inner.kind() == std::io::ErrorKind::InvalidData => inner.to_string(),
        _ => return None,
    };
    let todo = if detail.contains("not valid for name") || detail.contains("NotValidForName") {
        "let the cell have a host name that is in the server's certificate".to_owned()
    } else if detail.contains("certificate") {
        format!("name the PEM file of the authority that signed the server's certificate in {AUTHORITIES}")
    } else if detail.contains("does not support TLS") {
        "set ssl = on at the server, or let the cell's tls be prefer or disable".to_owned()
    } else {
        "look into the server's log".to_owned()
    };
    Some(format!("no TLS with the database server at {host}:{port} ({detail}): {todo}"))
}
