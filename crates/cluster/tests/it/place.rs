//! Where a server's files lie, who may read them, and who may come in.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use insula_cluster::{Binaries, Cluster};
use sqlx::{Connection, PgConnection};

use crate::{config, connect, folder, start, start_scratch};

/// All files under a folder, with what is in them.
fn files(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut queue = vec![folder.to_path_buf()];
    while let Some(path) = queue.pop() {
        for entry in std::fs::read_dir(&path).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                queue.push(path);
            } else {
                found.push((path.clone(), std::fs::read(&path).unwrap_or_default()));
            }
        }
    }
    found
}

#[tokio::test]
async fn the_password_is_needed_and_is_nowhere_on_disk() {
    let folder = folder();
    let cluster = start_scratch(folder.path()).await;
    connect(&cluster).await.ping().await.unwrap();
    for url in ["boss:wrong@", "boss@", "postgres@", ""] {
        let url = format!("postgres://{url}127.0.0.1:{}/postgres", cluster.port());
        assert!(PgConnection::connect(&url).await.is_err(), "{url} came in");
    }
    cluster.stop().await;
    for (path, bytes) in files(folder.path()) {
        assert!(!bytes.windows(7).any(|w| w == b"hunter2"), "{} holds the password", path.display());
    }
    let mode = std::fs::metadata(folder.path().join("data")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn it_listens_on_loopback_alone_and_never_runs_as_root() {
    let folder = folder();
    let cluster = start_scratch(folder.path()).await;
    let mut conn = connect(&cluster).await;
    let setting = |name: &'static str| sqlx::query_scalar::<_, String>("SELECT current_setting($1)").bind(name);
    for (name, value) in [
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("wal_level", "logical"),
        ("log_statement", "none"),
        ("log_min_error_statement", "panic"),
    ] {
        assert_eq!(setting(name).fetch_one(&mut conn).await.unwrap(), value, "{name}");
    }
    let lower: String = sqlx::query_scalar("SELECT lower('ÄÖ')").fetch_one(&mut conn).await.unwrap();
    assert_eq!(lower, "äö");
    if cfg!(target_os = "linux") {
        let owner = std::fs::metadata(format!("/proc/{}", cluster.pid())).unwrap().uid();
        assert_ne!(owner, 0);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn statements_stay_out_of_the_log() {
    let folder = folder();
    let cluster = start_scratch(folder.path()).await;
    let mut conn = connect(&cluster).await;
    let _ = sqlx::raw_sql("CREATE ROLE x PASSWORD 'opensesame' NOSUCHOPTION").execute(&mut conn).await.unwrap_err();
    let _ =
        sqlx::query("SELECT 1/(CASE WHEN $1 = 'opensesame' THEN 0 END)").bind("opensesame").execute(&mut conn).await.unwrap_err();
    cluster.stop().await;
    let log = std::fs::read_to_string(folder.path().join("data.log")).unwrap();
    assert!(log.contains("division by zero"), "{log}");
    assert!(!log.contains("opensesame"), "{log}");
}

#[tokio::test]
async fn a_folder_that_its_account_cannot_reach_becomes_a_link() {
    // As the folders under /root are; this process reaches it, whoever it is.
    let folder = folder();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let cluster = start(config(folder.path())).await;
    connect(&cluster).await.ping().await.unwrap();
    let port = cluster.port();
    cluster.stop().await;
    let data = folder.path().join("data");
    let is_link = std::fs::symlink_metadata(&data).unwrap().is_symlink();
    assert_eq!(is_link, nix::unistd::Uid::effective().is_root());
    let cluster = start(config(folder.path())).await;
    assert_eq!(cluster.port(), port);
    cluster.stop().await;
    if is_link {
        std::fs::remove_dir_all(data.canonicalize().unwrap()).unwrap();
    }
}

#[tokio::test]
async fn data_of_another_version_is_left_alone() {
    let folder = folder();
    start_scratch(folder.path()).await.stop().await;
    std::fs::write(folder.path().join("data/PG_VERSION"), "9\n").unwrap();
    let binaries = Binaries::find(None).unwrap();
    let error = Cluster::start(&binaries, config(folder.path())).await.unwrap_err().to_string();
    assert!(error.contains("made by Postgres 9") && error.contains("apt-get install postgresql-9"), "{error}");
}
