//! Starting, stopping, dying, coming back.

use std::time::Duration;

use insula_cluster::{Binaries, ClusterConfig, Durability};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::Connection;

use crate::{config, connect, folder, start, start_scratch};

#[tokio::test]
async fn a_restart_keeps_data_and_port() {
    let folder = folder();
    let cluster = start(config(folder.path())).await;
    let port = cluster.port();
    let mut conn = connect(&cluster).await;
    sqlx::query("CREATE TABLE t AS SELECT 1 AS x").execute(&mut conn).await.unwrap();
    // An open connection does not hold a fast shutdown up.
    let exit = tokio::time::timeout(Duration::from_secs(50), cluster.stop()).await.unwrap();
    assert_eq!(exit.code, Some(0), "{exit}");
    let cluster = start(config(folder.path())).await;
    assert_eq!(cluster.port(), port);
    let x: i32 = sqlx::query_scalar("SELECT x FROM t").fetch_one(&mut connect(&cluster).await).await.unwrap();
    assert_eq!(x, 1);
    cluster.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_given_up_for_another() {
    let folder = folder();
    let cluster = start(config(folder.path())).await;
    let port = cluster.port();
    cluster.stop().await;
    let _squatter = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let cluster = start(config(folder.path())).await;
    assert_ne!(cluster.port(), port);
    connect(&cluster).await.ping().await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn a_killed_server_is_noticed_and_loses_nothing() {
    let folder = folder();
    let mut cluster = start(config(folder.path())).await;
    let mut conn = connect(&cluster).await;
    sqlx::query("CREATE TABLE t (x int)").execute(&mut conn).await.unwrap();
    for round in 1..=3 {
        sqlx::query("INSERT INTO t VALUES ($1)").bind(round).execute(&mut conn).await.unwrap();
        kill(Pid::from_raw(cluster.pid()), Signal::SIGKILL).unwrap();
        let exit = cluster.wait().await;
        assert_eq!(exit.signal, Some(9));
        assert!(!cluster.is_running());
        // At once: the stale pid file and the dying backends are in the way, and must not be.
        cluster = start(cluster.config().clone()).await;
        conn = connect(&cluster).await;
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&mut conn).await.unwrap();
        assert_eq!(rows, i64::from(round));
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_server_that_an_earlier_run_left_is_stopped_first() {
    let folder = folder();
    let orphan = start(config(folder.path())).await;
    let mut conn = connect(&orphan).await;
    sqlx::query("CREATE TABLE t AS SELECT 1 AS x").execute(&mut conn).await.unwrap();
    let cluster = start(config(folder.path())).await;
    assert_eq!(orphan.wait().await.code, Some(0));
    let x: i32 = sqlx::query_scalar("SELECT x FROM t").fetch_one(&mut connect(&cluster).await).await.unwrap();
    assert_eq!(x, 1);
    cluster.stop().await;
}

#[tokio::test]
async fn a_pid_file_of_somebody_else_is_no_server() {
    let folder = folder();
    let cluster = start(config(folder.path())).await;
    cluster.stop().await;
    // The number was given to another process since: this one.
    let text = format!("{}\n/elsewhere\n0\n1\n\n127.0.0.1\n\nready\n", std::process::id());
    std::fs::write(folder.path().join("data/postmaster.pid"), text).unwrap();
    let began = std::time::Instant::now();
    let cluster = start(config(folder.path())).await;
    // A server that is believed to be there is waited for, for 75 seconds.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    cluster.stop().await;
}

#[tokio::test]
async fn a_half_made_folder_is_made_anew() {
    let folder = folder();
    // What a killed initdb leaves: no PG_VERSION at the top.
    std::fs::create_dir_all(folder.path().join("data/new/base")).unwrap();
    std::fs::write(folder.path().join("data/password"), "hunter2").unwrap();
    let cluster = start_scratch(folder.path()).await;
    connect(&cluster).await.ping().await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn why_it_does_not_start_is_told_from_its_log() {
    let folder = folder();
    let mut config = config(folder.path());
    config.settings.push(("max_connections".into(), "many".into()));
    let binaries = insula_cluster::Binaries::find(None).unwrap();
    let error = insula_cluster::Cluster::start(&binaries, config).await.unwrap_err().to_string();
    assert!(error.contains("max_connections") && !error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_password_that_nobody_knows_any_more_is_replaced() {
    let folder = folder();
    let cluster = start(config(folder.path())).await;
    let mut config = cluster.config().clone();
    let binaries = insula_cluster::Binaries::find(None).unwrap();
    config.admin_password = "it's \"new\"".to_owned();
    // Also of a server that runs without an owner: it is stopped first.
    std::mem::forget(cluster);
    insula_cluster::Cluster::reset_password(&binaries, &config).await.unwrap();
    let cluster = start(config).await;
    let options = sqlx::postgres::PgConnectOptions::new().host("127.0.0.1").port(cluster.port()).database("postgres");
    let connect = |password: &str| {
        let options = options.clone().username(&cluster.config().admin_role).password(password);
        async move { sqlx::PgConnection::connect_with(&options).await }
    };
    connect("it's \"new\"").await.unwrap().ping().await.unwrap();
    assert!(connect("hunter2").await.is_err());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_follows_and_goes_on_following_after_a_restart() {
    let folders = (folder(), folder());
    let primary = start_scratch(folders.0.path()).await;
    let mut admin = connect(&primary).await;
    sqlx::raw_sql("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").execute(&mut admin).await.unwrap();
    let binaries = Binaries::find(None).unwrap();
    let config = ClusterConfig { durability: Durability::Scratch, ..config(folders.1.path()) };
    let mut replica = primary.start_replica(&binaries, config.clone()).await.unwrap();
    for n in 2..4 {
        sqlx::query("INSERT INTO t VALUES ($1)").bind(n).execute(&mut admin).await.unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let mut there = connect(&replica).await;
            let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&mut there).await.unwrap();
            if seen == i64::from(n) {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "it does not follow: {seen} of {n}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        replica.stop().await;
        // Asked for again, it is the copy that is there.
        replica = primary.start_replica(&binaries, config.clone()).await.unwrap();
    }
    sqlx::query("INSERT INTO t VALUES (9)").execute(&mut connect(&replica).await).await.expect_err("it only reads");
}
