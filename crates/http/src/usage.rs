//! The way of usage from this process to the control plane.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use chrono::{DateTime, Utc};
use insula_api::Client;
use insula_api::usage::{Amounts, UsageBatch, UsageEntry};
use insula_telemetry::Meter;
use insula_telemetry::senses::Deliver;
use insula_telemetry::usage::journal::{Batch, Entry};

/// Delivers batches over REST.
#[derive(Debug)]
pub struct UsageDesk {
    client: Client,
}

impl UsageDesk {
    /// At this control plane, with the key in this file (scope `edge`); over TLS, the certificates in `authorities` alone are believed, or without
    /// that file, those of the web.
    ///
    /// # Errors
    /// In words, when a file or the address cannot be read.
    pub fn new(url: &str, key_file: &Path, authorities: Option<&Path>) -> Result<Self, String> {
        let read = |what: &str, file: &Path| {
            std::fs::read_to_string(file).map_err(|e| format!("the {what} file {} cannot be read: {e}", file.display()))
        };
        let authorities = authorities.map(|file| read("authorities", file)).transpose()?;
        let authorities = authorities.as_ref().map(String::as_bytes);
        let client = Client::with_authorities(url, read("key", key_file)?.trim(), authorities);
        Ok(Self { client: client.map_err(|e| e.to_string())? })
    }
}

impl Deliver for UsageDesk {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        Box::pin(async move {
            let entries = batch.entries.iter().filter_map(entry).collect();
            let batch = UsageBatch { id: batch.id, part: batch.part, entries };
            let receipt = self.client.add_usage(&batch).await.map_err(|e| e.to_string())?;
            if receipt.unknown > 0 {
                tracing::warn!(entries = receipt.unknown, "usage of tenants that the control plane does not know");
            }
            Ok(())
        })
    }
}

fn entry(entry: &Entry) -> Option<UsageEntry> {
    let used = &entry.amounts;
    Some(UsageEntry {
        tenant_no: entry.tenant.get(),
        hour: DateTime::<Utc>::from_timestamp(i64::try_from(entry.hour).ok()?, 0)?,
        used: Amounts {
            requests: used.get(Meter::Requests),
            bytes_in: used.get(Meter::BytesIn),
            bytes_out: used.get(Meter::BytesOut),
            cpu_us: used.get(Meter::Cpu),
            database_us: used.get(Meter::Database),
            rows: used.get(Meter::Rows),
        },
    })
}
