//! The control plane against real servers: provisioning with everything that can go wrong, and what is left after it.

mod house;
mod provision;
