//! Security events: one counter, one log target. What stands here is an attack, or a fault that would let one in.

/// Writes one event. `what` is a fixed name, so it may label a metric; the tenant goes to the log only.
macro_rules! event {
    ($what:literal, $($field:tt)*) => {{
        metrics::counter!("insula_security_events_total", "event" => $what).increment(1);
        tracing::warn!(target: "security", event = $what, $($field)*);
    }};
}
pub(crate) use event;
