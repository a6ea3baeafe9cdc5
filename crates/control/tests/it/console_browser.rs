//! The console in a real browser, against a real queue; and that what is committed is what its sources build, types and all.
//!
//! Packages are installed once, locked, in the user's cache folder; the browser is Debian's.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use insula_api::key::Scope;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;
use uuid::Uuid;

use crate::house::LONG;
use crate::rest_house::{House, house};
use crate::rest_tenants::{bundle, ready};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs it to its end; whoever sees it fail can type what it tried.
async fn run(command: &mut Command) {
    let typed = format!("{:?}", command.as_std());
    let done = command.output().await.unwrap_or_else(|error| panic!("{error}: `scripts/setup test` installs it, for {typed}"));
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{typed}\n{said}");
}

/// The folder that has the console's packages.
async fn packages() -> PathBuf {
    static PLACE: tokio::sync::OnceCell<PathBuf> = tokio::sync::OnceCell::const_new();
    let place = PLACE.get_or_init(async || {
        let lock = std::fs::read(root().join("console/package-lock.json")).unwrap();
        let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &lock);
        let sum: String = sum.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).unwrap_or_else(|| root().join("target"));
        let place = cache.join(format!("insula/tests/console-{sum}"));
        let whole = place.join("node_modules/.installed");
        if !whole.exists() {
            std::fs::create_dir_all(&place).unwrap();
            for name in ["package.json", "package-lock.json"] {
                std::fs::copy(root().join("console").join(name), place.join(name)).unwrap();
            }
            run(Command::new("npm").args(["ci", "--silent", "--no-audit", "--no-fund", "--prefer-offline"]).current_dir(&place))
                .await;
            std::fs::write(whole, "").unwrap();
        }
        place
    });
    place.await.clone()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        match path.is_dir() {
            true if name != "node_modules" => copy(&path, &to.join(name)),
            true => {}
            false => std::fs::copy(&path, to.join(name)).map(|_| ()).unwrap(),
        }
    }
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for path in std::fs::read_dir(next).unwrap().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push((path.strip_prefix(folder).unwrap().to_path_buf(), std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_is_embedded_is_what_the_sources_build() {
    let folder = tempfile::tempdir().unwrap();
    let sources = folder.path().join("console");
    copy(&root().join("console"), &sources);
    std::fs::create_dir(folder.path().join("openapi")).unwrap();
    std::fs::copy(root().join("openapi/insula.json"), folder.path().join("openapi/insula.json")).unwrap();
    std::os::unix::fs::symlink(packages().await.join("node_modules"), sources.join("node_modules")).unwrap();
    let built = folder.path().join("built");
    // With the types of today's document: what the console asks for and is not there fails here.
    run(Command::new("npm").args(["run", "--silent", "build"]).env("CONSOLE_OUT", &built).current_dir(&sources)).await;
    let (built, committed) = (files(&built), files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("console")));
    let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&built), names(&committed), "run `make console`");
    for ((name, ours), (_, theirs)) in built.iter().zip(&committed) {
        assert!(ours == theirs, "{} is another: run `make console`", name.display());
    }
}

/// A job that runs, of a worker that is nobody.
struct Running {
    database: PgConnection,
    tenant: i64,
    worker: i64,
    job: Uuid,
}

impl Running {
    async fn of(house: &House, slug: &str) -> Self {
        let body = json!({"slug": slug, "plan": "bronze", "isolation": "database"});
        let made = house.post("/v1/tenants?wait=true", &body).await;
        made.is(201);
        let server = insula_testkit::server().await;
        let mut catalog = server.admin(&house.catalog).await;
        let tenant =
            sqlx::query_scalar("SELECT no FROM catalog.tenant WHERE slug = $1").bind(slug).fetch_one(&mut catalog).await.unwrap();
        let mut database = server.admin(made.at("/placement/database")).await;
        let worker =
            sqlx::query_scalar("SELECT insula.worker_begin('browser/1', 600000)").fetch_one(&mut database).await.unwrap();
        let job = Uuid::now_v7();
        sqlx::query(
            "WITH a AS (INSERT INTO insula.arrival (tenant_id, lane, rank, due) VALUES ($1, '', 0, now()))
             INSERT INTO insula.job (tenant_id, id, due, created_at, kind, body)
             VALUES ($1, $2, clock_timestamp(), clock_timestamp(), 'export', '{\"format\": \"zip\"}')",
        )
        .bind(tenant)
        .bind(job)
        .execute(&mut database)
        .await
        .unwrap();
        let taken: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM insula.work($1, '{}', '{}', '{}', 1)")
            .bind(worker)
            .fetch_all(&mut database)
            .await
            .unwrap();
        assert_eq!(taken, [job]);
        Self { database, tenant, worker, job }
    }

    /// It says that it has come so far.
    async fn gets_to(&mut self, documents: u32) {
        let said = json!([{"t": self.tenant, "i": self.job, "a": 1, "p": {"documents": documents, "of": 400}}]);
        sqlx::query("SELECT * FROM insula.worker_beat($1, $2, NULL)")
            .bind(self.worker)
            .bind(said)
            .execute(&mut self.database)
            .await
            .unwrap();
    }
}

/// The first browser on PATH. Debian's is installed by `scripts/setup test`.
fn browser() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_signs_in_and_sees_a_job_get_on() {
    let Some(browser) = browser() else {
        let debian = std::fs::read_to_string("/etc/os-release").is_ok_and(|text| text.lines().any(|line| line == "ID=debian"));
        assert!(!debian, "there is no Chromium: `scripts/setup test` installs it");
        // Elsewhere it is no package that could be installed without asking.
        eprintln!("left out: no chromium on PATH");
        return;
    };
    let house = house().await;
    ready(house).await;
    bundle(house).await;
    let mut job = Running::of(house, "watched").await;
    job.gets_to(100).await;
    let url = house.bare("GET", "").build().unwrap().url().to_string();
    let mut driver = Command::new("node")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console/drive.mjs"))
        .env("MODULES", packages().await)
        .env("BROWSER", browser)
        .env("URL", url.trim_end_matches('/'))
        .env("KEY", house.key(Scope::Admin))
        .env("TENANT", "watched")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut seen = Vec::new();
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    while let Some(line) = tokio::time::timeout(2 * LONG, lines.next_line()).await.expect("it goes on").unwrap() {
        match line.as_str() {
            "25" => job.gets_to(300).await,
            "hidden" => job.gets_to(400).await,
            "cancelled" => {
                let now = house.get(&format!("/v1/tenants/watched/jobs/{}", job.job)).await;
                assert_eq!((now.at("/state"), &now.body["cancelling"]), ("running", &Value::Bool(true)), "{}", now.text);
            }
            _ => {}
        }
        seen.push(line);
    }
    let mut wrong = String::new();
    driver.stderr.take().unwrap().read_to_string(&mut wrong).await.unwrap();
    assert_eq!(seen, ["refused", "25", "75", "hidden", "100", "cancelled", "done"], "{wrong}");
    assert!(driver.wait().await.unwrap().success(), "{wrong}");
}
