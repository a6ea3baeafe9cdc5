//! Runs against a real server in this process.

#![allow(clippy::unwrap_used, reason = "tests")]

mod stalls;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use http::{HeaderMap, HeaderValue, Method};
use insula_load::{Arrivals, Plan, Rate, Report, Target, Traffic};
use tokio_util::sync::CancellationToken;

/// Serves until the test's runtime ends.
async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    addr
}

fn traffic(name: &str, rate: Rate, path: &str) -> Traffic {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_str(&format!("{name}.localhost")).unwrap());
    let target = Target { method: Method::GET, uri: path.parse().unwrap(), headers, body: "".into() };
    Traffic { name: name.to_owned(), rate, target, connections: 4 }
}

fn plan(addr: SocketAddr, traffic: Vec<Traffic>, length: Duration) -> Plan {
    let timeout = Duration::from_secs(5);
    Plan { addr, traffic, arrivals: Arrivals::Even, warmup: Duration::ZERO, length, timeout, threads: 2 }
}

async fn run(plan: Plan) -> Report {
    insula_load::run(plan, CancellationToken::new(), |_| {}).await.unwrap()
}
