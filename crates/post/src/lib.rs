//! Signed posts to addresses that somebody named, floor 1: what the control plane's webhooks and those of tenants have in common.
//!
//! For: judging an address ([`Reach`], [`check_url`]), signing a body ([`sign`]), one post ([`Poster`]). Not for: what is posted, when, and
//! how often it is tried again.
//! Always: a connection goes only to an address that was judged; nothing of an answer but its status is read.

mod address;
mod error;
mod poster;
mod reach;
mod signature;

pub use address::check_url;
pub use error::{Error, Failure};
pub use poster::Poster;
pub use reach::Reach;
pub use signature::{HEADER_EVENT, HEADER_SIGNATURE, HEADER_TOPIC, sign};
