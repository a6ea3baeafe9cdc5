//! Tenants over REST, from birth to deletion.
