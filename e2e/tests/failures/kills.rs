//! `kill -9` of anything under load: what was acknowledged is there, and the rest goes on.

use anyhow::Result;
use insula_e2e::client::User;
use insula_e2e::secrets::Secrets;
use insula_e2e::up::{Up, kill_9};

use crate::writers::{Writers, all_there, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn acknowledged_writes_survive_kills() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let up = Up::start(&data)?;
    let mut users = Vec::new();
    let mut secrets = Secrets::of(&up)?;
    for (slug, plan, isolation) in
        [("kill-row", "bronze", "row"), ("kill-schema", "silver", "schema"), ("kill-db", "gold", "database")]
    {
        let tenant = up.tenant(slug, plan, isolation)?;
        let user = User::log_in(&up, &tenant).await?;
        secrets.add_tenant(&tenant);
        secrets.add("a session's token", user.token());
        users.push(user);
    }
    let writers = Writers::start(&users);
    writers.progress("first writes", 50).await?;

    // The control plane is off the hot path: writes go on without it, and it comes back.
    let control = up.pid_of("control")?;
    kill_9(control)?;
    writers.progress("writes without the control plane", 50).await?;
    until("control restarted", || up.pid_of("control").is_ok_and(|pid| pid != control)).await?;

    // A database server: recovery, and all tenants write again.
    let postgres = up.pid_of("postgres")?;
    kill_9(postgres)?;
    for tenant in 0..users.len() {
        let from = writers.count_of(tenant);
        until("every tenant writes again after a database crash", || writers.count_of(tenant) > from + 5).await?;
    }

    // The gateway, and what is behind it.
    let gateway = up.pid_of("gateway")?;
    kill_9(gateway)?;
    until("gateway restarted", || up.pid_of("gateway").is_ok_and(|pid| pid != gateway)).await?;
    writers.progress("writes after the gateway's restart", 50).await?;
    let app = up.pid_of("app")?;
    kill_9(app)?;
    until("application restarted", || up.pid_of("app").is_ok_and(|pid| pid != app)).await?;
    writers.progress("writes after the application's restart", 50).await?;

    // All at once, in the middle of writes; then a new `up` on the same folder.
    up.kill()?;
    let acknowledged = writers.finish().await;
    let up = Up::start(&data)?;
    let users: Vec<User> = users.iter().map(|user| user.at(&up)).collect();
    all_there(&users, &acknowledged).await?;
    println!("{} acknowledged writes, all there", acknowledged.len());
    secrets.nowhere_told(&up)?;
    up.stop()
}
