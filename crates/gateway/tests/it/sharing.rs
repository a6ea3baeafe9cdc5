//! Gateways that share limits through a real Redis, as their settings say.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use insula_catalog::fake;

use crate::stage::{LONG, Stage, Wire, config, echo, get, start, status};

/// A server of the test's own, without a disk; dies with it.
struct Redis {
    port: u16,
    child: Child,
}

impl Redis {
    fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let program = ["redis-server", "valkey-server"].into_iter().find(|name| {
            Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
        });
        let program = program.expect("redis-server or valkey-server: scripts/setup installs one");
        let options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"];
        let child = Command::new(program).args(options).arg(port.to_string()).stdout(Stdio::null()).spawn().unwrap();
        Self { port, child }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Half of it is far less than one client gets through, one request after the other.
const RATE: u32 = 50;
const BURST: u32 = 25;

fn put_busy(stage: &Stage) {
    stage.source.change(|content| {
        let mut tenant = fake::tenant("busy", 9, "bronze", "main").unwrap();
        tenant.limits = serde_json::from_str(&format!(r#"{{"requests_per_second": {RATE}, "request_burst": {BURST}}}"#)).unwrap();
        content.put_tenant(tenant);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_share_a_tenants_rate() {
    let (redis, main) = (Redis::start(), echo("main").await);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("redis://127.0.0.1:{}\n", redis.port)).unwrap();
    let mut config = config();
    config.sharing.redis_url_file = Some(file.path().to_owned());
    config.sharing.gateways = 2;
    let (one, two) = (start(config.clone(), main.addr, main.addr).await, start(config, main.addr, main.addr).await);
    put_busy(&one);
    put_busy(&two);
    let (mut at_one, mut at_two) = (Wire::connect(one.addr).await, Wire::connect(two.addr).await);
    let began = Instant::now();
    let passed = async |client: &mut Wire| {
        let answer = client.ask(&get("busy.localhost", "/")).await;
        assert!(matches!(status(&answer), 200 | 429), "{answer}");
        u32::from(status(&answer) == 200)
    };
    // By itself a gateway of two lets through half of the plan. One whose neighbour has nothing to do passes that line, and goes on beyond it.
    let half = |seconds: f64| f64::from(BURST) / 2.0 + seconds * f64::from(RATE) / 2.0 + 1.0;
    let mut all = 0;
    while f64::from(all) < half(began.elapsed().as_secs_f64()) + f64::from(RATE) / 2.0 {
        all += passed(&mut at_one).await;
        assert!(began.elapsed() < LONG, "{all} passed, as if each gateway were on its own");
    }
    // Together they have the plan, and a second's worth of it beyond.
    let both = Instant::now();
    while both.elapsed().as_secs() < 2 {
        all += passed(&mut at_one).await + passed(&mut at_two).await;
    }
    let most = f64::from(BURST) + f64::from(RATE) * (began.elapsed().as_secs_f64() + 1.0) + 2.0;
    assert!(f64::from(all) <= most, "{all} passed, {most} at most");
}
