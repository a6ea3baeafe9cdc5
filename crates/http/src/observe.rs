//! One request, watched from its first line to the last byte of its answer.
//!
//! For: the layer of an application and the gateway alike. An [`Observation`] is filled in while the request goes its way, and tells the process's
//! [`Senses`] when it is dropped: so there is exactly one line and one count for each request, also for one that is cancelled. [`Observed`] carries it
//! with the answer's body. Always: filling it in allocates little: itself,
//! the path, the principal's name, a class other than the default, a place for the cost where something adds to it.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use insula_catalog::{Catalog, Found, Route};
use insula_core::TenantNo;
use insula_telemetry::requests::{Finished, Who};
use insula_telemetry::{Senses, cpu};

/// The class of routes that are in no other.
pub const DEFAULT_CLASS: &str = "default";

/// What other parts of a request add to while it runs.
#[derive(Debug, Default)]
pub struct Spent {
    /// Bytes of the request's body so far.
    pub bytes_in: AtomicU64,
    /// The client has not sent all of it yet, as far as somebody has looked for it.
    pub is_coming: AtomicBool,
    /// CPU time so far, nanoseconds.
    pub cpu_nanos: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub struct Observation {
    senses: Senses,
    started: Instant,
    method: Method,
    path: Box<str>,
    request_id: HeaderValue,
    trace_id: Option<[u8; 32]>,
    tenant: Option<Found>,
    principal: Option<Arc<str>>,
    class: Option<Box<str>>,
    /// The head of its answer was heard.
    heard: Option<Duration>,
    answer: Option<(StatusCode, Duration)>,
    /// Where something adds to it.
    spent: Option<Arc<Spent>>,
    bytes_out: u64,
    whole: bool,
}

impl Observation {
    /// A request begins. Boxed: it goes with the answer, through many hands.
    #[must_use]
    pub fn begin(senses: &Senses, method: &Method, uri: &Uri, request_id: HeaderValue) -> Box<Self> {
        Box::new(Self {
            senses: senses.clone(),
            started: Instant::now(),
            method: method.clone(),
            path: uri.path().into(),
            request_id,
            trace_id: None,
            tenant: None,
            principal: None,
            class: None,
            heard: None,
            answer: None,
            spent: None,
            bytes_out: 0,
            whole: false,
        })
    }

    /// When it began.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// It is this tenant's.
    pub fn is_of(&mut self, tenant: Found) {
        self.tenant = Some(tenant);
    }

    /// Whose it is, when that is known by now.
    #[must_use]
    pub const fn tenant(&self) -> Option<&Found> {
        self.tenant.as_ref()
    }

    /// Its answer takes its time: of the catalog, it keeps no more in memory than its tenant.
    pub fn lasts(&mut self) {
        self.tenant.as_mut().map(Found::keep);
    }

    /// This one asks.
    pub fn principal(&mut self, subject: Arc<str>) {
        self.principal = Some(subject);
    }

    /// Its route is of this class.
    pub fn class(&mut self, class: &str) {
        self.class = (class != DEFAULT_CLASS).then(|| class.into());
    }

    /// It is part of this trace.
    pub fn trace(&mut self, id: [u8; 32]) {
        self.trace_id = Some(id);
    }

    /// Where its cost is added to.
    #[must_use]
    pub fn spent(&mut self) -> Arc<Spent> {
        Arc::clone(self.spent.get_or_insert_default())
    }

    /// Somebody else's answer has come, now: what is done with it from here on takes no time to speak of.
    pub fn heard(&mut self) -> Instant {
        let now = Instant::now();
        self.heard = Some(now.saturating_duration_since(self.started));
        now
    }

    /// Here is the head of its answer; the rest goes with the body.
    pub fn answered<B: Body + Unpin>(mut self: Box<Self>, response: Response<B>) -> Response<Observed<B>> {
        self.answer = Some((response.status(), self.heard.unwrap_or_else(|| self.started.elapsed())));
        response.map(|body| {
            let expected = body.size_hint().exact();
            self.whole = body.is_end_stream() || self.method == Method::HEAD;
            Observed { body, expected, observation: self }
        })
    }

    fn saw<E>(&mut self, frame: Option<&Result<u64, E>>, expected: Option<u64>) {
        match frame {
            Some(Ok(bytes)) => self.bytes_out += bytes,
            Some(Err(_)) => {}
            None => self.whole = true,
        }
        self.whole |= expected.is_some_and(|expected| self.bytes_out >= expected);
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let total = self.started.elapsed();
        let added = |part: fn(&Spent) -> &AtomicU64| self.spent.as_deref().map_or(0, |spent| part(spent).load(Ordering::Relaxed));
        let who = self.tenant.as_ref().map(|tenant| Who {
            no: tenant.no,
            slug: tenant.slug.as_str(),
            tier: &tenant.plan.tier.name,
            cell: tenant.cell().as_str(),
        });
        self.senses.finished(&Finished {
            who,
            principal: self.principal.as_deref(),
            request_id: self.request_id.to_str().unwrap_or("?"),
            trace_id: self.trace_id.as_ref().and_then(|id| std::str::from_utf8(id).ok()),
            method: self.method.as_str(),
            path: &self.path,
            class: self.class.as_deref().unwrap_or(DEFAULT_CLASS),
            status: self.answer.map(|(status, _)| status.as_u16()),
            whole: self.whole,
            head: self.answer.map_or(total, |(_, head)| head),
            total,
            bytes_in: added(|spent| &spent.bytes_in),
            bytes_out: self.bytes_out,
            cpu: Duration::from_nanos(added(|spent| &spent.cpu_nanos)),
        });
    }
}

/// An answer's body with its observation.
#[derive(Debug)]
pub struct Observed<B> {
    body: B,
    expected: Option<u64>,
    observation: Box<Observation>,
}

impl<B> Observed<B> {
    /// The body itself.
    #[must_use]
    pub const fn get_ref(&self) -> &B {
        &self.body
    }

    /// The client has all of it, from somebody who did not ask for it piece by piece.
    pub const fn is_with_client(&mut self) {
        if let Some(expected) = self.expected {
            self.observation.bytes_out = expected;
        }
        self.observation.whole = true;
    }
}

impl<B: Body + Unpin> Body for Observed<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        use bytes::Buf as _;
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let seen = frame.as_ref().map(|frame| match frame {
            Ok(frame) => Ok(frame.data_ref().map_or(0, |data| data.remaining() as u64)),
            Err(_) => Err(()),
        });
        this.observation.saw(seen.as_ref(), this.expected);
        if this.body.is_end_stream() && !matches!(seen, Some(Err(()))) {
            this.observation.whole = true;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body, counted as it comes.
#[derive(Debug)]
pub struct Counted<B> {
    body: B,
    spent: Arc<Spent>,
}

impl<B> Counted<B> {
    /// Counts into this.
    pub const fn new(body: B, spent: Arc<Spent>) -> Self {
        Self { body, spent }
    }
}

impl<B> Drop for Counted<B> {
    fn drop(&mut self) {
        // Nobody waits for it any more.
        self.spent.is_coming.store(false, Ordering::Relaxed);
    }
}

impl<B: Body + Unpin> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        use bytes::Buf as _;
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.spent.is_coming.store(polled.is_pending(), Ordering::Relaxed);
        let frame = ready!(polled);
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, |data| data.remaining() as u64);
            self.spent.bytes_in.fetch_add(bytes, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The slugs of these tenants, as far as the catalog knows them: one look at all routes.
#[must_use]
pub fn names(catalog: &Catalog, wanted: &BTreeSet<TenantNo>) -> HashMap<TenantNo, String> {
    let named = |route: &Arc<Route>| wanted.contains(&route.no).then(|| (route.no, route.slug.to_string()));
    catalog.look(|view| view.routes().filter_map(named).collect())
}

/// Runs `work`, and adds the CPU time of its thread while it was polled. What it hands to other tasks and threads is theirs.
pub async fn timed<F: Future>(work: F, spent: Arc<Spent>) -> F::Output {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|cx| {
        let before = cpu::thread();
        let polled = work.as_mut().poll(cx);
        let nanos = u64::try_from(cpu::thread().saturating_sub(before).as_nanos()).unwrap_or(u64::MAX);
        spent.cpu_nanos.fetch_add(nanos, Ordering::Relaxed);
        polled
    })
    .await
}
