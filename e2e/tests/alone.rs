//! The program that serves many customers, for one on its own server (`INSULA_TENANCY=off`): no gateway, no control plane, no catalog; the
//! same binary, a database, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::{Cursor, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use insula_e2e::client::User;
use insula_e2e::up::{bin, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(90);

/// What the administrator of that one customer sets.
struct Site {
    folder: PathBuf,
    database: String,
}

impl Site {
    /// The program with this subcommand; `owner` knows the owner's password.
    fn acmedocs(&self, command: &str, owner: bool) -> Result<Command> {
        let url = if owner { self.database.clone() } else { without_owner(&self.database)? };
        let mut acmedocs = Command::new(bin("acmedocs")?);
        acmedocs.arg(command).current_dir(&self.folder).stdin(Stdio::null());
        acmedocs.env("INSULA_TENANCY", "off").env("INSULA_DATABASE_URL", url).env("INSULA_TENANT_NAME", "Acme");
        acmedocs.env("INSULA_ADMIN_EMAIL", "ann@acme.example").env("INSULA_STORE", self.folder.join("objects"));
        acmedocs.env("INSULA_LISTEN", "127.0.0.1:0").env("INSULA_LOG_FORMAT", "json");
        // It ends with the test.
        acmedocs.env("INSULA_PARENT_PID", std::process::id().to_string());
        Ok(acmedocs)
    }

    /// Serves; where, as its log says.
    fn serve(&self) -> Result<(Server, String)> {
        let log = self.folder.join("serve.log");
        let mut child = Server(self.acmedocs("serve", false)?.stderr(std::fs::File::create(&log)?).spawn()?);
        let addr = wait_for(SOON, || {
            let text = std::fs::read_to_string(&log)?;
            if let Some(status) = child.0.try_wait()? {
                bail!("it ended with {status}: {text}");
            }
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            Ok(lines.filter(|line| line["message"] == "serving").find_map(|line| Some(line["addr"].as_str()?.to_owned())))
        })?;
        Ok((child, format!("http://{addr}")))
    }
}

fn without_owner(url: &str) -> Result<String> {
    let (scheme, rest) = url.split_once("://").context("a URL")?;
    Ok(format!("{scheme}://{}", rest.split_once('@').context("an owner")?.1))
}

/// A process that is killed when its test fails.
struct Server(Child);

impl Server {
    /// As a service manager stops it: it says how it ended.
    fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.0.id())?), Signal::SIGTERM)?;
        let status = wait_for(SOON, || Ok(self.0.try_wait()?))?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Prepares the database; the first user's password, as it is printed.
fn install(site: &Site) -> Result<String> {
    let output = site.acmedocs("install", true)?.output()?;
    let (printed, said) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {said}", output.status);
    let told = printed.trim().strip_prefix("ready: log in as ann@acme.example with the password ");
    Ok(told.with_context(|| format!("it printed {printed:?}"))?.to_owned())
}

/// Asks for all documents, and waits until the worker of this very process has written them.
async fn export(ann: &User) -> Result<Value> {
    let (status, asked) = ann.json(Method::POST, "/api/exports", Some(&json!({"format": "zip"}))).await?;
    ensure!(status == StatusCode::ACCEPTED, "{status} {asked}");
    let path = format!("/api/exports/{}", asked["id"].as_str().context("no id")?);
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let (_, now) = ann.json(Method::GET, &path, None).await?;
        if now["state"] == "done" {
            return Ok(now);
        }
        ensure!(tokio::time::Instant::now() < deadline, "it stays as it is: {now}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn file(base: &str, export: &Value) -> Result<Vec<u8>> {
    let link = export["download"].as_str().with_context(|| format!("no link: {export}"))?;
    // The link is all that it takes.
    let answer = reqwest::get(format!("{base}{link}")).await?.error_for_status()?;
    Ok(answer.bytes().await?.to_vec())
}

fn at(folder: &Path, database: String) -> Site {
    Site { folder: folder.to_owned(), database }
}

#[tokio::test]
async fn one_customer_is_served_by_the_program_that_serves_many() -> Result<()> {
    // A server of its own: preparing it sets its roles' passwords.
    let server = insula_testkit::durable_server().await;
    let folder = tempfile::tempdir()?;
    let site = at(folder.path(), server.admin_url("acme"));
    let password = install(&site)?;

    let (served, base) = site.serve()?;
    let ann = User::log_in_at(&base, "docs.acme.example", "ann@acme.example", &password).await?;
    let id = ann.write("Lease", "The tenant pays on the first.").await?;
    let done = export(&ann).await?;
    assert_eq!((&done["progress"]["documents"], &done["progress"]["of"]), (&json!(1), &json!(1)), "{done}");
    let mut zip = zip::ZipArchive::new(Cursor::new(file(&base, &done).await?))?;
    let mut text = String::new();
    zip.by_name("documents/DOC-000001 Lease.md")?.read_to_string(&mut text)?;
    assert_eq!((zip.len(), text.as_str()), (2, "The tenant pays on the first."));
    served.stop()?;

    // Started again it has what it had; sessions, too.
    let (served, base) = site.serve()?;
    let ann = ann.at_address(&base);
    let (status, lease) = ann.json(Method::GET, &format!("/api/documents/{id}"), None).await?;
    assert_eq!((status, &lease["title"]), (StatusCode::OK, &json!("Lease")), "{lease}");
    assert_eq!(file(&base, &export(&ann).await?).await?.get(..2), Some(b"PK".as_slice()));
    served.stop()
}
