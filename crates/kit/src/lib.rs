//! The SQL kit that lives in each tenant database, and its installer.
