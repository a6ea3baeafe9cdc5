//! `insula certificate`: certificates of host names, for gateways that follow the catalog.

use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use insula_api::certificate::{Certificate, PutCertificate};
use insula_core::Kind;

use crate::error::Error;
use crate::screen::{Screen, Tone, time};
use crate::target::Target;

/// Put, list and remove the certificates that gateways show for host names
#[derive(clap::Args, Debug)]
pub(crate) struct CertificateArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: CertificateCommand,
}

#[derive(clap::Subcommand, Debug)]
enum CertificateCommand {
    /// Put a certificate, in the place of the one before: gateways show it within seconds
    Put {
        /// The host name; `*.acme.example` is for all names one label below acme.example
        name: String,
        /// The certificate, then those that lead to its authority: PEM
        #[arg(long, value_name = "FILE")]
        chain: PathBuf,
        /// Its private key: PEM. It is kept sealed, and only gateways that have the certificates' key open it
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// List certificates
    List,
    /// Take a certificate away
    Remove {
        /// Its host name
        name: String,
    },
}

/// A file that the caller named.
fn read(path: &Path) -> Result<String, Error> {
    let fault = |e: std::io::Error| {
        Error::new(Kind::Invalid, format!("cannot read {}: {e}", path.display()), "give files with PEM in them")
    };
    std::fs::read_to_string(path).map_err(fault)
}

pub(crate) async fn run(args: CertificateArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    match args.command {
        CertificateCommand::Put { name, chain, key } => {
            let certificate = PutCertificate { chain: read(&chain)?, key: read(&key)? };
            let made = client.put_certificate(&name, &certificate).await?;
            screen.show(&made, |_| {
                let until = made.not_after.map_or_else(String::new, |end| format!(", good until {}", time(end)));
                format!("{} has the certificate {}{until}", made.name, made.fingerprint)
            })
        }
        CertificateCommand::List => {
            let found = client.certificates().await?;
            screen.show(&found, |screen| table(screen, &found.items, Utc::now()))
        }
        CertificateCommand::Remove { name } => {
            client.delete_certificate(&name).await?;
            screen.show(&serde_json::json!({"removed": name}), |_| format!("removed the certificate of {name}"))
        }
    }
}

/// Less than this is shown as something to do.
const SOON: TimeDelta = TimeDelta::days(14);

fn table(screen: Screen, certificates: &[Certificate], now: DateTime<Utc>) -> String {
    let until = |end: Option<DateTime<Utc>>| match end {
        None => ("-".to_owned(), Tone::Plain),
        Some(end) if end <= now => (format!("{} (over)", time(end)), Tone::Bad),
        Some(end) if end - now < SOON => (format!("{} (soon)", time(end)), Tone::Wait),
        Some(end) => (time(end), Tone::Plain),
    };
    let row = |one: &Certificate| {
        let short = one.fingerprint.get(..23).unwrap_or(&one.fingerprint).to_owned();
        vec![(one.name.clone(), Tone::Plain), until(one.not_after), (time(one.updated_at), Tone::Plain), (short, Tone::Plain)]
    };
    screen.table(&["NAME", "GOOD UNTIL", "PUT", "SHA-256 BEGINS"], certificates.iter().map(row).collect(), "No certificates.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_the_callers_mistake() {
        assert_eq!(read(Path::new("/nowhere/chain.pem")).expect_err("no file").kind(), Kind::Invalid);
    }

    #[test]
    fn certificates_are_listed() {
        let one: Certificate = serde_json::from_value(serde_json::json!({
            "name": "docs.acme.example", "fingerprint": "AB:CD:EF:01:23:45:67:89:AB:CD", "updated_at": "2026-01-02T03:04:05Z",
            "not_after": "2026-04-02T03:04:05Z"
        }))
        .expect("a certificate");
        let at = |now: &str| table(Screen::PIPE, std::slice::from_ref(&one), now.parse().expect("a time"));
        for (now, until) in [
            ("2026-03-01T00:00:00Z", "2026-04-02 03:04:05Z"),
            ("2026-03-20T00:00:00Z", "2026-04-02 03:04:05Z (soon)"),
            ("2026-04-02T03:04:05Z", "2026-04-02 03:04:05Z (over)"),
        ] {
            let row = format!("docs.acme.example  {until}  2026-01-02 03:04:05Z  AB:CD:EF:01:23:45:67:89");
            assert!(at(now).contains(&row), "{}", at(now));
        }
        assert_eq!(table(Screen::PIPE, &[], Utc::now()).trim_end(), "No certificates.");
    }
}
