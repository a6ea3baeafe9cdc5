//! The SQL kit that lives in each tenant database, and its installer.
//!
//! For: the roles of a server, the boundary in a database (grants, row security, privileges), the tenants and logins that a
//! database knows, the lint that finds leaks, and carrying out what an application brings (migrations, seed). Not for: pools, or
//! signing grants.
//! Always: every call is idempotent and may be repeated after a crash; a call that returns has left nothing half made; no key
//! or password is ever part of a statement's text, of an error or of a log line.
//!
//! All calls are the host side's: their connection logs in as the server's administrator. Two ways of binding a transaction to
//! a tenant exist, see [`Way`] and `docs/decisions/0001-fence-instead-of-row-read.md`.

mod error;
mod holder;
mod install;
mod lint;
mod login;
mod migrations;
mod module;
mod rekey;
mod seed;
mod server;
mod tenant;
mod version;

pub use error::{Error, transient};
pub use holder::Holder;
pub use install::{Installed, give_key, install, is_current, use_schema};
pub use lint::{Finding, Severity, lint};
pub use login::{create_login, disable_login, drop_login, enable_login};
pub use migrations::{Migration, Standing, migrate, migrate_now, prepare_migrations, refuse_leaks, refuse_uncovered, standing};
pub use rekey::{replace_keys, replace_passwords};
pub use seed::{SeedValues, seed};
pub use server::{Server, Way, clone_database, close_database, create_database, prepare_server};
pub use tenant::{Census, bind, census, close_tenant, fence, leap_fence, register_tenant, remove_tenant, set_tenant};
pub use version::{Version, check_version};
