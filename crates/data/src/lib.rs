//! Pools, tenant-bound transactions, the fast lane.
