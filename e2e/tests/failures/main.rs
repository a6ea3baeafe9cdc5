//! What fails in life: processes are killed, Postgres is away, the disk is full. Nothing that was acknowledged is lost, what is
//! refused is refused clearly and in time, and all goes on by itself afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod full_disk;
mod kills;
mod postgres_away;
mod writers;
