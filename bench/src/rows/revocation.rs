//! From a word of the control plane to its force in a follower over HTTP, in another process: a tenant suspended, a limit changed.

use anyhow::Result;
use insula_control::model::UpdateTenant;
use tokio::runtime::Runtime;

use super::edge::{Ask, Edge, Follower, now};
use crate::{Outcome, Row, Samples, Target};

/// The row.
pub(crate) const ROW: Row =
    Row { name: "revocation", about: "suspended to refused, limit changed to in force, at a follower over HTTP", run };

const TENANTS: i64 = 10_000;
const ROUNDS: usize = 300;

fn run() -> Result<Vec<Outcome>> {
    let runtime = Runtime::new()?;
    let edge = runtime.block_on(async {
        let edge = Edge::start().await?;
        edge.tenants(TENANTS).await?;
        anyhow::Ok(edge)
    })?;
    let mut followers = (0..3).map(|_| Follower::start(&edge, None)).collect::<Result<Vec<_>>>()?;
    for follower in &mut followers {
        follower.ask(&Ask::Ready)?;
    }
    let (mut suspended, mut limited) = (Samples::default(), Samples::default());
    for n in 0..ROUNDS {
        let slug = format!("t-{}", n + 1);
        // Measured from before the transaction that says it, as an operator would.
        let began = now();
        // The catalog's word is what data planes refuse by; the operation goes on to fence the database after it.
        let sql = "UPDATE catalog.tenant SET state = 'suspended', version = version + 1, updated_at = now() WHERE slug = $1";
        runtime.block_on(sqlx::query(sql).bind(&slug).execute(&edge.catalog))?;
        suspended.0.push(last(&mut followers, &Ask::Suspended(slug.clone(), true), began)?);
        let users = 1000 + u32::try_from(n)?;
        let change =
            UpdateTenant { limits: Some([("max_users".to_owned(), u64::from(users))].into()), ..UpdateTenant::default() };
        let began = now();
        runtime.block_on(edge.control.update_tenant("bench", &slug, change, None))?;
        limited.0.push(last(&mut followers, &Ask::Users(slug, users), began)?);
    }
    let detail =
        |s: &Samples| format!("{ROUNDS} rounds, the slowest of 3 followers in each, {TENANTS} tenants; p50 {:.1} ms", s.median());
    Ok(vec![
        Outcome::figure(
            "suspended to refused everywhere, p99",
            suspended.quantile(0.99),
            "ms",
            Target::AtMost(1000.0),
            detail(&suspended),
        ),
        Outcome::figure("limit changed to in force, p99", limited.quantile(0.99), "ms", Target::AtMost(100.0), detail(&limited)),
    ])
}

/// Milliseconds until the last of them has seen it.
fn last(followers: &mut [Follower], ask: &Ask, began: u64) -> Result<f64> {
    let mut last = began;
    for follower in followers {
        last = last.max(follower.ask(ask)?);
    }
    #[allow(clippy::cast_precision_loss, reason = "nanoseconds of a moment")]
    Ok((last - began) as f64 / 1e6)
}
