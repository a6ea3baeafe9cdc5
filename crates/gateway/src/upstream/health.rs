//! Looks after applications that stand beside others: one that does not answer is left out before a request finds that out.
//!
//! Not for a cell's only application: leaving it out would help nobody. Always: a check is bounded in time; two that fail in a row make an
//! endpoint sick, one that succeeds makes it well.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use http::Request;
use http::header::HOST;

use crate::body::RequestBody;
use crate::config::ms;
use crate::upstream::Endpoint;
use crate::worker::Worker;

/// Failures in a row that make an endpoint sick.
const SICK: u32 = 2;

/// Checks until the worker ends.
pub(crate) async fn look_after(worker: Rc<Worker>) {
    let config = &worker.shared.config.upstream;
    let (every, within) = (config.health_every_ms, ms(worker.shared.config.timeouts.connect_ms));
    let mut failures: HashMap<Box<str>, u32> = HashMap::new();
    loop {
        worker.pause(every).await;
        let endpoints = worker.cells.to_be_checked();
        failures.retain(|name, _| endpoints.iter().any(|endpoint| endpoint.authority() == &**name));
        let checks = endpoints.iter().map(|endpoint| is_well(endpoint, &config.health_path, within));
        let found = futures_util::future::join_all(checks).await;
        for (endpoint, is_well) in endpoints.iter().zip(found) {
            let failed = failures.entry(endpoint.authority().into()).or_default();
            *failed = if is_well { 0 } else { failed.saturating_add(1) };
            if is_well || *failed >= SICK {
                endpoint.set_health(is_well);
            }
        }
    }
}

async fn is_well(endpoint: &Endpoint, path: &str, within: Duration) -> bool {
    let ask = async {
        let mut link = endpoint.connect().await.ok()?;
        let request = Request::get(path).header(HOST, endpoint.authority()).body(RequestBody::Empty).ok()?;
        link.ask(request).await
    };
    matches!(tokio::time::timeout(within, ask).await, Ok(Some(status)) if status.is_success())
}
