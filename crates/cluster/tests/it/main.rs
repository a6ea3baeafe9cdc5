//! Against real servers, which the tests start, kill and damage.
