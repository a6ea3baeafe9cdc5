//! One watcher's stream: from where it stands to the present, and on.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use insula_catalog::wire::{self, LOADED, PAGE, Revision};
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use uuid::Uuid;

use super::load::Load;
use super::{Hub, Joined, News, frame};
use crate::error::Error;
use crate::handle::Control;

/// How often it is looked whether the key is still in force; this process's own revocations are heard at once.
const KEY_AGE: Duration = Duration::from_secs(5);

/// A watcher.
pub(crate) struct Watcher {
    control: Control,
    hub: Hub,
    key: Uuid,
    key_seen: Instant,
    /// Where it stands; `None` before a full load.
    at: Option<i64>,
    stage: Stage,
    ready: VecDeque<Bytes>,
    _place: OwnedSemaphorePermit,
}

enum Stage {
    /// Find out how to go on from where it stands.
    Resume,
    Loading(Load),
    Live(broadcast::Receiver<News>),
}

/// Why a stream ends; the watcher comes back if it may.
enum End {
    /// It is too slow, its key was taken back, or the process ends.
    Cut,
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Watcher {
    /// A watcher that stands at `since`; `None` when there are too many.
    pub(crate) fn new(control: Control, key: Uuid, since: Option<i64>) -> Option<Self> {
        let hub = control.hub().clone();
        let place = hub.0.watchers.clone().try_acquire_owned().ok()?;
        let (stage, ready) = (Stage::Resume, VecDeque::new());
        Some(Self { control, hub, key, key_seen: Instant::now(), at: since, stage, ready, _place: place })
    }

    /// Its stream of server-sent events.
    pub(crate) fn events(self) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
        unfold(self, async |mut watcher| {
            let closed = watcher.hub.0.closed.clone();
            while watcher.ready.is_empty() {
                let step = tokio::select! {
                    () = closed.cancelled() => return None,
                    step = watcher.step() => step,
                };
                match step {
                    Ok(()) => {}
                    Err(End::Cut) => return None,
                    Err(End::Failed(error)) => {
                        tracing::debug!(%error, "a watcher is cut off: the catalog does not answer");
                        return None;
                    }
                }
            }
            let bytes = watcher.ready.pop_front()?;
            Some((Ok(bytes), watcher))
        })
    }

    /// One step forward; may put events into `ready`.
    async fn step(&mut self) -> Result<(), End> {
        match (&mut self.stage, self.at) {
            (Stage::Resume, None) => self.stage = Stage::Loading(Load::begin(&self.hub).await),
            (Stage::Resume, Some(at)) => self.resume(at).await?,
            (Stage::Loading(load), _) => match load.next().await.map_err(Error::Schema)? {
                Ok(page) => self.ready.push_back(event(PAGE, None, &page)?),
                Err(revision) => {
                    self.ready.push_back(event(LOADED, Some(revision), &Revision { revision })?);
                    (self.at, self.stage) = (Some(revision), Stage::Resume);
                }
            },
            (Stage::Live(news), at) => {
                // Lagged (too slow) and closed are one: it resumes.
                let news = news.recv().await.map_err(|_| End::Cut)?;
                self.hear(news, at.unwrap_or(-1)).await?;
            }
        }
        Ok(())
    }

    async fn resume(&mut self, at: i64) -> Result<(), End> {
        // Further on than the feed: it has only just been committed, or never was (an older backup came back).
        if at > self.hub.head() && self.hub.changes(at).await?.is_none() {
            self.at = None;
            return Ok(());
        }
        if let Joined::On { frames, news } = self.hub.join(at) {
            self.at = Some(frames.last().map_or(at, |sent| sent.revision));
            self.ready.extend(frames.into_iter().map(|sent| sent.bytes));
            self.stage = Stage::Live(news);
            return Ok(());
        }
        match self.hub.changes(at).await? {
            Some(changes) if changes.revision > at => {
                let sent = frame(at, &changes).ok_or(End::Cut)?;
                self.at = Some(sent.revision);
                self.ready.push_back(sent.bytes);
            }
            // The reader begins about here; its first news says how to go on.
            Some(_) => self.wait_for_reader(at).await?,
            None => self.at = None,
        }
        Ok(())
    }

    /// Nothing has happened after `at`, and the feed's reader has not begun, or further on.
    async fn wait_for_reader(&mut self, at: i64) -> Result<(), End> {
        let mut news = self.hub.0.news.subscribe();
        if matches!(self.hub.join(at), Joined::Behind) {
            news.recv().await.map_err(|_| End::Cut)?;
        }
        Ok(())
    }

    async fn hear(&mut self, news: News, at: i64) -> Result<(), End> {
        match news {
            News::Frame(sent) if sent.revision <= at => {}
            News::Frame(sent) if sent.since > at => self.stage = Stage::Resume,
            News::Frame(sent) => {
                self.at = Some(sent.revision);
                self.ready.push_back(sent.bytes);
            }
            News::Current(revision, bytes) => {
                self.look_at_key().await?;
                if revision <= at {
                    self.ready.push_back(bytes);
                }
            }
            News::Moved => self.stage = Stage::Resume,
            News::Revoked(key) if key == self.key => return Err(End::Cut),
            News::Revoked(_) => {}
        }
        Ok(())
    }

    /// Another control plane may have taken the key back.
    async fn look_at_key(&mut self) -> Result<(), End> {
        if self.key_seen.elapsed() < KEY_AGE {
            return Ok(());
        }
        if !self.control.api_key_in_force(self.key).await? {
            return Err(End::Cut);
        }
        self.key_seen = Instant::now();
        Ok(())
    }
}

fn event(name: &str, id: Option<i64>, data: &impl serde::Serialize) -> Result<Bytes, End> {
    match wire::event(name, id, data) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => Err(End::Failed(Error::Corrupt(format!("a page cannot be written: {error}")))),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;
    use crate::config::Config;
    use crate::model::Scope;

    const LONG: Duration = Duration::from_secs(30);

    async fn control() -> (Control, Uuid) {
        let postgres = insula_testkit::server().await;
        let name = postgres.create_database("watch").await;
        let control = Control::open(Config::new(postgres.admin_url(&name), postgres.root_key())).await.unwrap();
        let key = control.create_api_key("test", "edge", Scope::Edge).await.unwrap().key.id;
        (control, key)
    }

    /// A change, and the feed's reader has seen it.
    async fn change(control: &Control, n: i32) -> i64 {
        let sql = "UPDATE catalog.plan SET limits = limits || jsonb_build_object('max_users', $1::int) WHERE name = 'gold'";
        sqlx::query(sql).bind(n).execute(control.catalog_pool()).await.unwrap();
        let revision: i64 =
            sqlx::query_scalar("SELECT rev FROM catalog.revision").fetch_one(control.catalog_pool()).await.unwrap();
        let deadline = Instant::now() + LONG;
        while control.hub().head() < revision {
            assert!(Instant::now() < deadline, "the feed is not read");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        revision
    }

    fn id(event: &Bytes) -> Option<i64> {
        let text = std::str::from_utf8(event).unwrap();
        text.lines().find_map(|line| line.strip_prefix("id: "))?.parse().ok()
    }

    #[tokio::test]
    async fn who_is_too_slow_is_cut_off_and_takes_up_where_it_was() {
        let (control, key) = control().await;
        let mut slow = Box::pin(Watcher::new(control.clone(), key, Some(0)).unwrap().events());
        let (mut at, mut head) = (0, 0);
        // Until it lives on news, and not on what is kept.
        loop {
            let event = tokio::time::timeout(LONG, slow.next()).await.unwrap().unwrap().unwrap();
            at = id(&event).unwrap_or(at);
            if event.starts_with(b"event: current") {
                break;
            }
        }
        // Each is a frame and a sign of life: more than anybody may have waiting.
        for n in 0..i32::try_from(super::super::SLOWEST).unwrap() / 2 + 20 {
            head = change(&control, n).await;
        }
        while let Some(event) = tokio::time::timeout(LONG, slow.next()).await.expect("it ends") {
            at = id(&event.unwrap()).unwrap_or(at);
        }
        assert!(at < head, "it was cut off before the end: {at} of {head}");
        let mut again = Box::pin(Watcher::new(control.clone(), key, Some(at)).unwrap().events());
        while at < head {
            let event = tokio::time::timeout(LONG, again.next()).await.unwrap().expect("it goes on").unwrap();
            let to = id(&event).unwrap();
            assert!(to > at || event.starts_with(b"event: current"), "nothing comes twice");
            at = to;
        }
        // A place is given back when its watcher is gone.
        drop((slow, again));
        assert_eq!(control.hub().0.watchers.available_permits(), super::super::MOST_WATCHERS);
    }

    #[tokio::test]
    async fn a_hub_that_is_closed_ends_its_streams() {
        let (control, key) = control().await;
        let mut stream = Box::pin(Watcher::new(control.clone(), key, None).unwrap().events());
        assert!(tokio::time::timeout(LONG, stream.next()).await.unwrap().is_some());
        control.hub().close();
        let end = async { while stream.next().await.is_some() {} };
        tokio::time::timeout(LONG, end).await.expect("it ends");
    }
}
