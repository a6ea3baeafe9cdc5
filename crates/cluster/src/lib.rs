//! Private Postgres servers on this machine.
