//! The attack list of the database boundary, by raw SQL, as the application's role, in every isolation mode and both ways of
//! binding. What only the statement gate closes is shown to be closed by it.
#![allow(clippy::expect_used, clippy::panic)]

mod fence;
mod gate;
mod grants;
mod login;
mod raw;
mod stage;
mod tables;
mod transaction;
