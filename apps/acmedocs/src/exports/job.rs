//! The jobs behind exports: one that writes the file, one that removes it.
//!
//! Always: each attempt writes under a name of its own, and the row takes the name of the attempt that it knows as the last; so an attempt that
//! was given up for lost, and was not, neither spoils a file nor publishes one.

use std::time::Duration;

use chrono::{DateTime, Utc};
use insula::jobs::{self, Enqueue, Job, JobContext, JobError, KindRules};
use insula::objects::Upload;
use insula::{Result, Tenant, TenantTx};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use crate::documents::{Format as Written, Number};
use crate::events;
use crate::exports::archive::{self, Chunks, Entries, Entry, file_name};
use crate::exports::{Format, KEPT, MOST_KEPT, Progress};
use crate::features::EXPORTS;

/// Bytes of text that are read in one go; one document more than that at most.
const PAGE_BYTES: i64 = 1 << 20;
/// Documents that are read in one go.
const PAGE: i64 = 200;

/// Writes an export's file. The job's id is the export's.
#[derive(Debug, Serialize, Deserialize)]
pub struct WriteExport {
    /// How.
    pub format: Format,
}

impl Job for WriteExport {
    const KIND: &'static str = "export";
    type Output = ();

    fn rules() -> KindRules {
        KindRules {
            attempts: 5,
            timeout: Duration::from_secs(3600),
            // Those above the plan's number wait in a line of their own, and hold up nothing else.
            cap: Some(1),
            cap_feature: Some(EXPORTS.name()),
            cost: 100,
            retention: KEPT,
            ..KindRules::default()
        }
    }

    async fn run(self, context: JobContext) -> Result<(), JobError> {
        let tenant = Tenant::of_job(&context)?;
        let Some(scope) = begin(&context, &tenant).await? else { return Ok(()) };
        let folder = format!("exports/{}/{}", context.id(), context.attempt());
        let object = format!("{folder}/documents.zip");
        let mut upload = tenant.objects().create(&object).await.map_err(insula::Error::from)?;
        let (entries, chunks) = archive::begin()?;
        let work = Work { tenant: &tenant, context: &context, scope };
        // Reading, compressing and storing go on side by side; the slowest of them sets the pace.
        let (documents, ()) = tokio::try_join!(work.write(entries), store(chunks, &mut upload))?;
        let bytes = upload.finish().await.map_err(insula::Error::from)?;
        if !finish(&context, &tenant, &object, documents, bytes).await? {
            tenant.objects().remove_all(&folder).await.map_err(insula::Error::from)?;
        }
        Ok(())
    }
}

/// What an export takes in: what was there when it began.
struct Scope {
    last: Option<Uuid>,
    documents: i64,
}

/// Takes the row for this attempt, and removes what earlier ones left. `None` when the export is over.
async fn begin(context: &JobContext, tenant: &Tenant) -> Result<Option<Scope>> {
    let mut tx = tenant.begin().await?;
    let sql = "UPDATE exports SET attempt = $2 WHERE id = $1 AND attempt < $2 AND outcome IS NULL";
    let taken = sqlx::query(sql).bind(context.id()).bind(context.attempt()).execute(&mut tx).await?.rows_affected();
    let last = sqlx::query_scalar("SELECT id FROM documents ORDER BY id DESC LIMIT 1").fetch_optional(&mut tx).await?;
    let documents = sqlx::query_scalar("SELECT count(*) FROM documents").fetch_one(&mut tx).await?;
    tx.commit().await?;
    if taken == 0 {
        return Ok(None);
    }
    if context.attempt() > 1 {
        tenant.objects().remove_all(&format!("exports/{}", context.id())).await?;
    }
    Ok(Some(Scope { last, documents }))
}

/// Publishes the file. False when the export is not this attempt's to end: it was cancelled, or another is at it.
async fn finish(context: &JobContext, tenant: &Tenant, object: &str, documents: i64, bytes: u64) -> Result<bool> {
    let mut tx = tenant.begin().await?;
    let sql =
        "UPDATE exports SET outcome = 'done', ended_at = now(), expires_at = now() + make_interval(secs => $3), object = $4,
                   documents = $5, bytes = $6
               WHERE id = $1 AND attempt = $2 AND outcome IS NULL";
    let done = sqlx::query(sql).bind(context.id()).bind(context.attempt());
    let done = done.bind(KEPT.as_secs_f64()).bind(object).bind(documents).bind(i64::try_from(bytes).unwrap_or(i64::MAX));
    let done = done.execute(&mut tx).await?.rows_affected() > 0;
    if done {
        events::export(&mut tx, context.id(), documents, bytes).await?;
        expire(&mut tx, &[context.id()], KEPT).await?;
        let sql = "SELECT id FROM exports WHERE outcome = 'done' ORDER BY id DESC OFFSET $1";
        let more: Vec<Uuid> = sqlx::query_scalar(sql).bind(MOST_KEPT).fetch_all(&mut tx).await?;
        expire(&mut tx, &more, Duration::ZERO).await?;
    }
    tx.commit().await?;
    Ok(done)
}

/// Has the files of these exports removed after `delay`. Each has one removal at a time: one that comes later gives way, one that is due stays.
pub(crate) async fn expire(tx: &mut TenantTx, exports: &[Uuid], delay: Duration) -> Result<()> {
    for export in exports {
        // Who comes meanwhile waits for this row, and finds the removal.
        let sql = "SELECT removal FROM exports WHERE id = $1 FOR UPDATE";
        let Some(before) = sqlx::query_scalar::<_, Option<Uuid>>(sql).bind(export).fetch_optional(&mut *tx).await? else {
            continue;
        };
        if let Some(before) = before {
            match jobs::state(tx, before).await?.as_ref().map(|job| job.state.as_str()) {
                Some("waiting" | "running") => continue,
                Some("later") => drop(jobs::cancel(tx, before).await?),
                _ => {}
            }
        }
        let removal = jobs::enqueue(tx, &RemoveExport { export: *export }, &Enqueue { delay, ..Enqueue::default() }).await?;
        sqlx::query("UPDATE exports SET removal = $2 WHERE id = $1").bind(export).bind(removal).execute(&mut *tx).await?;
    }
    Ok(())
}

async fn store(mut chunks: Chunks, upload: &mut Upload) -> Result<()> {
    while let Some(chunk) = chunks.next().await? {
        upload.write(chunk).await?;
    }
    Ok(())
}

struct Work<'a> {
    tenant: &'a Tenant,
    context: &'a JobContext,
    scope: Scope,
}

#[derive(FromRow)]
struct Text {
    id: Uuid,
    number: Number,
    title: String,
    body: String,
    #[sqlx(try_from = "String")]
    format: Written,
    updated_at: DateTime<Utc>,
}

/// A line of the index.
#[derive(Serialize, FromRow)]
struct Line {
    id: Uuid,
    number: Number,
    title: String,
    #[sqlx(try_from = "String")]
    format: Written,
    version: i32,
    tags: Vec<String>,
    source: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl Work<'_> {
    /// All documents, then the index. Pages are transactions of their own: a long one would keep the tenant's database from cleaning up, and the
    /// tenant from being suspended or moved.
    async fn write(&self, entries: Entries) -> Result<i64> {
        let mut written = 0;
        let mut after = None;
        loop {
            let page = self.texts(after).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for text in page {
                let name = format!("documents/{}", file_name(text.number, &text.title, ending(text.format)));
                send(&entries, Entry::File { name, at: text.updated_at, text: text.body }).await?;
                written += 1;
            }
            let said = Progress { documents: written, of: self.scope.documents.max(written), bytes: 0 };
            self.context.progress(serde_json::to_value(said)?);
        }
        self.index(&entries).await?;
        send(&entries, Entry::End).await?;
        Ok(written)
    }

    async fn index(&self, entries: &Entries) -> Result<()> {
        send(entries, Entry::Begin("index.jsonl".to_owned())).await?;
        let mut after = None;
        loop {
            let page = self.lines(after).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id);
            let mut text = String::new();
            for line in &page {
                let file = format!("documents/{}", file_name(line.number, &line.title, ending(line.format)));
                let mut line = serde_json::to_value(line)?;
                line["file"] = file.into();
                text.push_str(&line.to_string());
                text.push('\n');
            }
            send(entries, Entry::More(text)).await?;
        }
    }

    /// Index `documents_pkey`. Sizes are known without reading texts, so that a page of long ones is cut short.
    async fn texts(&self, after: Option<Uuid>) -> Result<Vec<Text>> {
        let mut tx = self.tenant.begin().await?;
        let sql = "SELECT id, number, title, body, format, updated_at FROM (
                       SELECT p.*, sum(octet_length(p.body)) OVER (ORDER BY p.id) - octet_length(p.body) AS before FROM (
                           SELECT id, number, title, body, format, updated_at FROM documents
                           WHERE ($1::uuid IS NULL OR id > $1) AND id <= $2 ORDER BY id LIMIT $3
                       ) p
                   ) p WHERE before < $4 ORDER BY id";
        let texts = sqlx::query_as(sql).bind(after).bind(self.scope.last).bind(PAGE).bind(PAGE_BYTES).fetch_all(&mut tx).await?;
        tx.commit().await?;
        Ok(texts)
    }

    /// Index `documents_pkey`.
    async fn lines(&self, after: Option<Uuid>) -> Result<Vec<Line>> {
        let mut tx = self.tenant.begin().await?;
        let sql = "SELECT d.id, d.number, d.title, d.format, d.version, d.source, d.created_at, d.updated_at,
                          ARRAY(SELECT t.tag FROM tags t WHERE t.document = d.id ORDER BY t.tag) AS tags
                   FROM documents d WHERE ($1::uuid IS NULL OR d.id > $1) AND d.id <= $2 ORDER BY d.id LIMIT $3";
        let lines = sqlx::query_as(sql).bind(after).bind(self.scope.last).bind(PAGE).fetch_all(&mut tx).await?;
        tx.commit().await?;
        Ok(lines)
    }
}

const fn ending(format: Written) -> &'static str {
    match format {
        Written::Markdown => "md",
        Written::Plain => "txt",
    }
}

async fn send(entries: &Entries, entry: Entry) -> Result<()> {
    // Nobody takes it when the archive has failed, which is what is heard then.
    entries.send(entry).await.map_err(|_| insula::Error::internal("the archive was given up"))
}

/// Removes an export's file, when its time has come or somebody wants it.
#[derive(Debug, Serialize, Deserialize)]
pub struct RemoveExport {
    /// Which.
    pub export: Uuid,
}

impl Job for RemoveExport {
    const KIND: &'static str = "export_removal";
    type Output = ();

    fn rules() -> KindRules {
        KindRules { attempts: 50, ..KindRules::default() }
    }

    async fn run(self, context: JobContext) -> Result<(), JobError> {
        let tenant = Tenant::of_job(&context)?;
        // First nobody is sent there any more.
        let mut tx = tenant.begin().await?;
        let sql = "UPDATE exports SET outcome = 'expired', object = NULL WHERE id = $1 AND outcome = 'done'";
        sqlx::query(sql).bind(self.export).execute(&mut tx).await?;
        tx.commit().await?;
        tenant.objects().remove_all(&format!("exports/{}", self.export)).await.map_err(insula::Error::from)?;
        Ok(())
    }
}
