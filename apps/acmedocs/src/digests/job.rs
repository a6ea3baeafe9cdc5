//! The job that writes digests, each night of each workspace.

use std::time::Duration;

use insula::Tenant;
use insula::jobs::{Job, JobContext, JobError, KindRules};
use serde::{Deserialize, Serialize};

use crate::digests;

/// Writes the digests of the days that are over. However often it runs, a day has one.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct WriteDigests {}

impl Job for WriteDigests {
    const KIND: &'static str = "digest";
    /// How many days it wrote.
    type Output = usize;

    fn rules() -> KindRules {
        KindRules { retention: Duration::from_secs(24 * 3600), ..KindRules::default() }
    }

    async fn run(self, context: JobContext) -> Result<usize, JobError> {
        Ok(digests::write_missing(&Tenant::of_job(&context)?).await?)
    }
}
