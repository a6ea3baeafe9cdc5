//! Registered cells whose servers have to prove who they are.

use std::sync::Arc;
use std::time::Duration;

use insula_control::model::{OperationState, RegisterCell};
use insula_core::Isolation;
use insula_testkit::{Authority, TestServer, durable_server};

use crate::house::{House, LONG, bundle, create};

async fn register(house: &House, name: &str, host: &str, server: &TestServer) {
    let register = RegisterCell {
        name: name.parse().expect("a name"),
        region: "local".into(),
        labels: vec![],
        host: host.into(),
        port: server.port(),
        tls: "verify-full".into(),
        app_url: None,
        capacity: 1,
        dedicated: true,
    };
    house.control.register_cell("test", register).await.expect("registered");
}

/// Asks for a tenant and waits until its operation says this; the operation.
async fn until_told(house: &House, slug: &str, words: &str) -> insula_core::OperationId {
    let id = house.control.create_tenant("test", create(slug, Isolation::Cell), None).await.expect("accepted").operation.id;
    let deadline = tokio::time::Instant::now() + LONG;
    loop {
        let operation = house.control.operation(id).await.expect("there");
        assert!(!operation.state.finished(), "{operation:?}");
        if format!("{operation:?}").contains(words) {
            return id;
        }
        assert!(tokio::time::Instant::now() < deadline, "never said {words:?}: {operation:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_cell_that_is_not_believed_says_why_and_is_used_once_it_is() {
    let (authority, foreign, believed) = (Authority::new(), Authority::new(), tempfile::NamedTempFile::new().expect("a file"));
    let copy = |from: &Authority| std::fs::copy(from.file(), believed.path()).expect("copied");
    copy(&foreign);
    let servers = [durable_server().await, durable_server().await];
    let logins = ["unknown", "misnamed"]
        .iter()
        .zip(&servers)
        .map(|(cell, server)| ((*cell).to_owned(), server.admin_url("postgres").into()));
    let json = serde_json::json!({"cells": logins.collect::<serde_json::Map<_, _>>()});
    let mut secrets = tempfile::NamedTempFile::new().expect("a file");
    std::io::Write::write_all(&mut secrets, json.to_string().as_bytes()).expect("written");
    for server in &servers {
        server.turn_tls_on(&authority, "localhost").await;
    }
    let mut house = House::on(Arc::new(durable_server().await), |config| {
        config.cell_secrets = Some(secrets.path().to_owned());
        config.cell_authorities = Some(believed.path().to_owned());
    })
    .await;
    house.control.put_bundle("test", bundle()).await.expect("a good bundle");

    register(&house, "unknown", "localhost", &servers[0]).await;
    let waiting = until_told(&house, "first", "in INSULA_CELL_CA").await;
    copy(&authority);
    assert_eq!(house.ended(waiting).await.state, OperationState::Done);
    let mut admin = servers[0].admin("postgres").await;
    let count = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
                 WHERE a.application_name = 'insula-control' AND NOT s.ssl";
    assert_eq!(crate::house::count(&mut admin, count).await, 0, "connections of the control plane without TLS");

    register(&house, "misnamed", "127.0.0.1", &servers[1]).await;
    until_told(&house, "second", "host name that is in the server's certificate").await;
    house.stop().await;
}
