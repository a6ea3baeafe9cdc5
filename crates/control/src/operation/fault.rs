//! Things that go wrong on purpose: the seam through which tests fail and crash an operation at any step.
//!
//! Always: the engine asks at fixed points and carries out the answer by the same paths that real faults take.

/// What is to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The step fails for good: what was done is undone.
    Fail,
    /// What the step needs is away: it is tried again.
    Away,
    /// The engine vanishes on the spot, as by `kill -9`: nothing more is written, connections drop.
    Crash,
}

/// Where in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// Before the step does anything.
    Before,
    /// When the step has done everything and nothing of it is recorded.
    After,
    /// When an undo is done and not yet recorded.
    Undone,
}

/// Decides what goes wrong.
pub trait Faults: Send + Sync + 'static {
    /// What is to go wrong at this point of an operation of this kind.
    fn at(&self, kind: &str, step: &str, moment: Moment) -> Option<Fault>;
}

/// Nothing goes wrong on purpose.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFaults;

impl Faults for NoFaults {
    fn at(&self, _kind: &str, _step: &str, _moment: Moment) -> Option<Fault> {
        None
    }
}
