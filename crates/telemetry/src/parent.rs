//! A supervised process dies with its supervisor: no orphan keeps a port or serves stale routes.
//!
//! Linux only (`prctl(2)`, `PR_SET_PDEATHSIG`). Traps: the signal follows the parent *thread* that forked, so a supervisor spawns children
//! from a thread that lives as long as itself (a runtime worker or the main thread, never a blocking-pool thread); it is
//! cleared by executing a set-uid binary.

use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::error::Error;

/// Where a supervisor tells its child who it is: the supervisor's process id.
pub const PARENT_VARIABLE: &str = "INSULA_PARENT_PID";

/// Asks the kernel for SIGTERM when the parent dies, if the environment names a parent ([`PARENT_VARIABLE`]); without one does nothing and
/// returns false: a process started by hand is nobody's child.
///
/// # Errors
/// When the kernel refuses, or when the named parent died before the tie was made.
pub fn die_with_parent() -> Result<bool, Error> {
    let Some(parent) = std::env::var(PARENT_VARIABLE).ok().and_then(|text| text.parse::<u32>().ok()) else {
        return Ok(false);
    };
    tie(parent, Signal::SIGTERM).map(|()| true)
}

fn tie(parent: u32, signal: Signal) -> Result<(), Error> {
    prctl::set_pdeathsig(signal).map_err(Error::Parent)?;
    // The parent may have died before the line above: then no signal ever comes, and we are somebody else's child by now.
    if std::os::unix::process::parent_id() == parent { Ok(()) } else { Err(Error::Orphan(parent)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_that_is_not_ours_is_noticed() {
        assert!(matches!(tie(u32::MAX, Signal::SIGCONT), Err(Error::Orphan(u32::MAX))));
        assert!(tie(std::os::unix::process::parent_id(), Signal::SIGCONT).is_ok());
        assert_eq!(prctl::get_pdeathsig().unwrap(), Some(Signal::SIGCONT));
        prctl::set_pdeathsig(None).unwrap();
    }
}
