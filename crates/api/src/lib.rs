//! The REST contract: types, problem body, client, OpenAPI document.
