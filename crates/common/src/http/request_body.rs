//! The body of a request: it reports when the request has arrived completely, and reads and discards what its handler left unread.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::header::EXPECT;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connection_limit::Permit;

/// If a connection is closed while its client still sends, the kernel resets it, and most clients then never see the answer. So what a client
/// still sends is read after the answer, up to this many bytes and for this long.
pub(super) const DRAIN_BYTES: usize = 24 * 1024 * 1024;
pub(super) const DRAIN_TIME: Duration = Duration::from_secs(10);
pub(super) const DRAIN_SILENCE: Duration = Duration::from_secs(2);

/// Whether the client sends the body only after it got `100 Continue`, which it gets when the body is first read.
pub(super) fn waits_for_continue(headers: &HeaderMap) -> bool {
    let expected = headers.get(EXPECT);
    expected.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// How many bytes this request has at least, with its body. Blanks in its headers and what frames a body in chunks come on top.
pub(super) fn least_bytes<B: Body>(request: &Request<B>) -> usize {
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let request_line = [request.method().as_str(), " ", target, " HTTP/1.1\n"];
    let headers = request.headers().iter();
    let body = request.body().size_hint().lower();
    request_line.iter().map(|part| part.len()).sum::<usize>()
        + headers
            .map(|(name, value)| name.as_str().len() + ":".len() + value.len() + "\n".len())
            .sum::<usize>()
        + "\n".len()
        + usize::try_from(body).unwrap_or(usize::MAX / 2)
}

/// The body that handlers read.
#[derive(Debug)]
pub(super) struct RequestBody {
    /// `None` when it has arrived completely, or has failed.
    rest: Option<Incoming>,
    permit: Arc<Permit>,
    /// Ends the draining. `None` where nothing has to be drained: a client that waits for `100 Continue` sends nothing before it.
    overdue: Option<CancellationToken>,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, permit: Arc<Permit>, overdue: Option<CancellationToken>) -> Self {
        let mut body = Self {
            rest: Some(body),
            permit,
            overdue,
        };
        body.end_if_complete();
        body
    }

    fn end_if_complete(&mut self) {
        if self.rest.as_ref().is_some_and(Body::is_end_stream) {
            self.rest = None;
            self.permit.request_received();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.rest else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(context));
        match &frame {
            Some(Ok(_)) => self.end_if_complete(),
            Some(Err(_)) => self.rest = None,
            None => {
                self.rest = None;
                self.permit.request_received();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref();
        rest.map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let (Some(overdue), Some(body), Ok(runtime)) =
            (self.overdue.take(), self.rest.take(), Handle::try_current())
        {
            let permit = Arc::clone(&self.permit);
            runtime.spawn(async move {
                let drained = timeout(DRAIN_TIME, drain(body, &permit));
                if overdue.run_until_cancelled(drained).await == Some(Ok(true)) {
                    permit.request_received();
                }
            });
        }
    }
}

/// Whether the end of the body came.
async fn drain(mut body: Incoming, permit: &Permit) -> bool {
    let mut read = 0_usize;
    while read < DRAIN_BYTES {
        match timeout(DRAIN_SILENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                permit.bytes_discarded(bytes);
                read += bytes;
            }
            Ok(None) => return true,
            Ok(Some(Err(_))) | Err(_) => return false,
        }
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_few_bytes_more_than_the_least() {
        let body = r#"{"currency":"USD"}"#;
        let token = "x".repeat(1_000);
        let sent = format!(
            "PUT /buy_order?a=1 HTTP/1.1\r\nhost: localhost\r\nauthorization: {token}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let request = Request::put("http://localhost/buy_order?a=1")
            .header("host", "localhost")
            .header("authorization", &token)
            .header("content-length", body.len())
            .body(axum::body::Body::from(body))
            .unwrap();
        let more = sent.len().checked_sub(least_bytes(&request));
        // A blank and a carriage return for each of three headers, and two carriage returns more.
        assert_eq!(more, Some(8));
    }
}
