//! Two versions of an application side by side: each tenant is sent to the one that knows its tables.

use std::sync::Arc;
use std::time::Instant;

use insula_catalog::{AppVersion, fake};

use crate::stage::{LONG, Wire, config, echo, get, start, status};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_sent_to_the_application_that_serves_its_schema() {
    let (one, blue, green) = (echo("one").await, echo("blue").await, echo("green").await);
    let stage = start(config(), one.addr, one.addr).await;
    let version = |app: &crate::stage::App, min_schema, max_schema| AppVersion {
        url: format!("http://{}", app.addr).into(),
        min_schema,
        max_schema,
        weight: 1,
    };
    let both = [version(&blue, 0, Some(6)), version(&green, 7, None)];
    let put = |apps: &[AppVersion]| {
        stage.source.change(|content| {
            let mut cell = fake::cell("main", "127.0.0.1", 1).unwrap();
            cell.app_url = Some(format!("http://{}", one.addr).into());
            cell.app_versions = apps.iter().cloned().collect::<Arc<[_]>>();
            content.put_cell(cell);
        });
    };
    let at = |slug: &str, no, schema_version| {
        let mut tenant = fake::tenant(slug, no, "bronze", "main").unwrap();
        tenant.schema_version = schema_version;
        stage.source.change(|content| content.put_tenant(tenant.clone()));
        tenant
    };
    at("old", 11, 6);
    let mut new = at("new", 12, 7);
    let mut client = Wire::connect(stage.addr).await;
    // The gateway notices a moment after the catalog says so.
    let mut answers = async |slug: &str, wanted: &str| {
        let deadline = Instant::now() + LONG;
        loop {
            let answer = client.ask(&get(&format!("{slug}.localhost"), "/")).await;
            let served = answer.contains(&format!("\r\n\r\n{wanted}\n")) || (wanted.is_empty() && status(&answer) == 503);
            if served {
                return;
            }
            assert!(Instant::now() < deadline, "{slug} is not served by {wanted:?}: {answer}");
            if answer.contains("connection: close") {
                client = Wire::connect(stage.addr).await;
            }
        }
    };
    answers("old", "one").await;
    put(&both);
    answers("old", "blue").await;
    answers("new", "green").await;
    // Back, and on again: each time to what knows its tables.
    new.schema_version = 5;
    stage.source.change(|content| content.put_tenant(new.clone()));
    answers("new", "blue").await;
    put(&both[1..]);
    answers("old", "").await;
    put(&[]);
    answers("old", "one").await;
}
