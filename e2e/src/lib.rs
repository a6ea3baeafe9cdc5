//! End-to-end tests: attacks, isolation under load, failure.
