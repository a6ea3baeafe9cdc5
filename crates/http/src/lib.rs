//! Tower layers: tenant resolution, problem responses.
