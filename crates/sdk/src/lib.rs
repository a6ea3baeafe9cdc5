//! Make an axum and sqlx application multi-tenant with one layer and one extractor.
