//! What the data plane of one process may use.

use std::path::PathBuf;
use std::time::Duration;

use insula_telemetry::usage::Usage;

/// Bounds on connections and waiting. The defaults suit one application process beside others on one server.
#[derive(Clone, Debug)]
pub struct DataConfig {
    /// Connections that this process holds at most, over all pools, idle ones included. Beside them, two look after each replica
    /// that is read from.
    pub max_connections: u32,
    /// Connections of the shared pool of one cell (`row` tenants).
    pub pool_connections: u32,
    /// Connections of the pool of one dedicated login (`schema`, `database`, `cell`).
    pub dedicated_connections: u32,
    /// Requests that may wait for a connection in one pool; the next one makes the longest line lose its newest.
    pub queue: usize,
    /// Requests of one tenant that may wait in one pool.
    pub queue_per_tenant: usize,
    /// An idle connection of a shared pool is closed after this time.
    pub idle_timeout: Duration,
    /// An idle connection of a dedicated pool is closed after this time.
    pub dedicated_idle_timeout: Duration,
    /// No connection lives longer: plans and caches of a backend only grow.
    pub max_lifetime: Duration,
    /// Longest time to open a connection.
    pub connect_timeout: Duration,
    /// How long a rollback, a commit's answer aside, may take before the connection is closed instead.
    pub rollback_timeout: Duration,
    /// Prepared statements kept per connection.
    pub statement_cache: usize,
    /// Attempts at opening or repeating one transaction, the first included.
    pub attempts: u32,
    /// A read of a tenant whose plan has `read_replica` goes to a replica only while that is proven to show everything that was
    /// committed this long ago. Zero: never.
    pub read_staleness: Duration,
    /// Certificate authorities that cells' servers may have beside those of the web: a PEM file, read at each new connection.
    pub authorities: Option<PathBuf>,
    /// Where time with the database and rows are counted for each tenant.
    pub usage: Option<Usage>,
    /// What the connection calls itself in the server's activity view.
    pub application_name: String,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            max_connections: 48,
            pool_connections: 24,
            dedicated_connections: 8,
            queue: 2_048,
            queue_per_tenant: 256,
            idle_timeout: Duration::from_secs(300),
            dedicated_idle_timeout: Duration::from_secs(30),
            max_lifetime: Duration::from_secs(1_800),
            connect_timeout: Duration::from_secs(5),
            rollback_timeout: Duration::from_secs(2),
            statement_cache: 256,
            attempts: 4,
            read_staleness: Duration::from_secs(1),
            authorities: None,
            usage: None,
            application_name: "insula".into(),
        }
    }
}
