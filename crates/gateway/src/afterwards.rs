//! What is done with a request of HTTP/1 once its answer is written.
//!
//! Its log line, its meters and the objectives it counts for are nothing that a client has to wait for, and hyper lets go of an answer's body before it
//! writes the answer. Always: what is kept here ends with its connection at the latest, so that each request is told of once. Not for: HTTP/2, where
//! another task writes, nor the first of two requests that are answered in one turn.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use insula_http::observe::Observed;

use crate::body::{Body, BoxError};

/// One connection's, for the answer that is being written.
#[derive(Default)]
pub(crate) struct Afterwards(RefCell<Option<Observed<Body>>>);

impl Afterwards {
    /// The answer is written, or will not be.
    pub(crate) fn settle(&self) {
        drop(self.0.take());
    }
}

/// An answer's body that is kept when hyper lets go of it.
pub(crate) struct Kept {
    /// Until then.
    body: Option<Observed<Body>>,
    afterwards: Rc<Afterwards>,
}

impl Kept {
    pub(crate) const fn new(body: Observed<Body>, afterwards: Rc<Afterwards>) -> Self {
        Self { body: Some(body), afterwards }
    }

    pub(crate) fn get_ref(&self) -> Option<&Body> {
        self.body.as_ref().map(Observed::get_ref)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // The one before, of a request that came with this one: outside of the loan, whatever it does.
        let before = self.afterwards.0.replace(self.body.take());
        drop(before);
    }
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderValue, Method, Response, Uri};
    use insula_http::observe::Observation;
    use insula_telemetry::Senses;

    use super::*;

    /// An answer, and whoever asked: once more for as long as the request is not told of.
    fn answer(afterwards: &Rc<Afterwards>) -> (Kept, Arc<str>) {
        let (uri, id) = (Uri::from_static("/x"), HeaderValue::from_static("1"));
        let (mut seen, subject) = (Observation::begin(&Senses::default(), &Method::GET, &uri, id), Arc::from("me"));
        seen.principal(Arc::clone(&subject));
        let answer = seen.answered(Response::new(Body::full(Bytes::from_static(b"ok"))));
        (Kept::new(answer.into_body(), Rc::clone(afterwards)), subject)
    }

    fn is_told(subject: &Arc<str>) -> bool {
        Arc::strong_count(subject) == 1
    }

    #[test]
    fn each_request_is_told_of_once_its_answer_is_written() {
        let afterwards = Rc::new(Afterwards::default());
        let ((one, first), (two, second), (three, third)) = (answer(&afterwards), answer(&afterwards), answer(&afterwards));
        drop(one);
        assert!(!is_told(&first));
        // They came together, and are written together.
        drop(two);
        assert!(is_told(&first) && !is_told(&second));
        afterwards.settle();
        assert!(is_told(&second));
        // Its connection ends meanwhile.
        drop(three);
        assert!(!is_told(&third));
        drop(afterwards);
        assert!(is_told(&third));
    }

    #[tokio::test]
    async fn the_body_is_the_one_that_is_kept() {
        let (mut kept, _) = answer(&Rc::default());
        assert_eq!((kept.size_hint().exact(), kept.is_end_stream()), (Some(2), false));
        let mut next = async || std::future::poll_fn(|cx| Pin::new(&mut kept).poll_frame(cx)).await;
        assert_eq!(next().await.unwrap().unwrap().into_data().unwrap(), "ok");
        assert!(next().await.is_none());
        assert_eq!((kept.size_hint().exact(), kept.is_end_stream()), (Some(0), true));
    }
}
