//! Logs, metrics, the admin port, graceful drain.
