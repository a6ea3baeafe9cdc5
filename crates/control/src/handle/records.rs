//! What happened and how things stand: operations, audit, status.

use std::collections::BTreeMap;

use insula_core::OperationId;

use super::Control;
use crate::error::Error;
use crate::model::{AuditEntry, AuditFilter, Operation, OperationEvent, OperationFilter, Page, PageRequest, Status};
use crate::store;

impl Control {
    /// One operation.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn operation(&self, id: OperationId) -> Result<Operation, Error> {
        store::operations::get(&mut *self.catalog_pool().acquire().await?, id).await
    }

    /// Operations, newest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cursor of somebody's own making.
    pub async fn operations(&self, filter: &OperationFilter, page: &PageRequest) -> Result<Page<Operation>, Error> {
        store::operations::list(&mut *self.catalog_pool().acquire().await?, filter, page).await
    }

    /// What happened in an operation after `seq` (0: from the beginning), at most 1,000.
    ///
    /// # Errors
    /// When the catalog does not answer.
    pub async fn operation_events(&self, id: OperationId, seq: i64) -> Result<Vec<OperationEvent>, Error> {
        store::operations::events(&mut *self.catalog_pool().acquire().await?, id, seq).await
    }

    /// The audit log, newest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cursor of somebody's own making.
    pub async fn audit(&self, filter: &AuditFilter, page: &PageRequest) -> Result<Page<AuditEntry>, Error> {
        store::audit::list(&mut *self.catalog_pool().acquire().await?, filter, page).await
    }

    /// The first audit row that does not fit the chain of hashes; `None`: nobody has tampered. Reads the whole log.
    ///
    /// # Errors
    /// When the catalog does not answer.
    pub async fn verify_audit(&self) -> Result<Option<i64>, Error> {
        store::audit::verify(&mut *self.catalog_pool().acquire().await?).await
    }

    /// How things stand.
    ///
    /// # Errors
    /// When the catalog does not answer.
    pub async fn status(&self) -> Result<Status, Error> {
        let workers = self.worker_counts().await?;
        let mut conn = self.catalog_pool().acquire().await?;
        let counts = async |conn: &mut sqlx::PgConnection, sql: &'static str| -> Result<BTreeMap<String, i64>, Error> {
            let rows: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(conn).await?;
            Ok(rows.into_iter().collect())
        };
        Ok(Status {
            ready: self.is_ready(),
            revision: sqlx::query_scalar("SELECT rev FROM catalog.revision").fetch_one(&mut *conn).await?,
            schema_version: sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM catalog.migration")
                .fetch_one(&mut *conn)
                .await?,
            tenants: counts(&mut conn, "SELECT state, count(*) FROM catalog.tenant GROUP BY state").await?,
            isolation: counts(&mut conn, "SELECT isolation, count(*) FROM catalog.placement GROUP BY isolation").await?,
            operations: counts(&mut conn, "SELECT state, count(*) FROM catalog.operation GROUP BY state").await?,
            warm: counts(&mut conn, "SELECT cell, count(*) FROM catalog.cell_database WHERE purpose = 'warm' GROUP BY cell")
                .await?,
            audit_broken_at: store::audit::verify(&mut conn).await?,
            outbox_waiting: store::outbox::waiting(&mut conn).await?,
            cells: store::cells::all(&mut conn).await?,
            workers,
        })
    }

    /// Forgets all but the newest [`crate::Config::keep_revisions`] of the change feed, as the reconcilers do when it has grown
    /// past them by a tenth; answers how many changes went. Zero when another control plane is at it.
    ///
    /// # Errors
    /// When the catalog does not answer.
    pub async fn trim_feed(&self) -> Result<i64, Error> {
        crate::feed_trim::trim(self).await
    }
}
