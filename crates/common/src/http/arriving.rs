//! The body of a request on its way in: its seat learns when it is there, and what an answer did not wait for is read and thrown away.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::header::EXPECT;
use axum::http::{HeaderMap, request};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::seats::Seat;

/// A connection that is closed while its client still sends is reset, and most clients then never see the answer that was refused to
/// them. So the rest of a body is read after the answer, as long as it comes: so many bytes, for so long.
const DRAIN_BYTES: usize = 24 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(10);
const DRAIN_SILENCE: Duration = Duration::from_secs(2);

/// The client sends the body after it got `100 Continue`, which it gets when the body is read first.
pub(super) fn waits_for_continue(headers: &HeaderMap) -> bool {
    let continues = |value: &axum::http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    headers.get(EXPECT).is_some_and(continues)
}

/// A body as it arrives.
#[derive(Debug)]
pub(super) struct ArrivingBody {
    /// `None` once it is there in full, or has failed.
    rest: Option<Incoming>,
    seat: Arc<Seat>,
    /// A client that waits for `100 Continue` sends nothing that would have to be read.
    drained: bool,
    overdue: CancellationToken,
}

impl ArrivingBody {
    pub(super) fn new(
        head: &request::Parts,
        body: Incoming,
        seat: Arc<Seat>,
        overdue: CancellationToken,
    ) -> Self {
        let mut arriving = Self {
            rest: Some(body),
            seat,
            drained: !waits_for_continue(&head.headers),
            overdue,
        };
        arriving.end_if_complete();
        arriving
    }

    fn end_if_complete(&mut self) {
        if self.rest.as_ref().is_some_and(Body::is_end_stream) {
            self.rest = None;
            self.seat.arrived();
        }
    }
}

impl Body for ArrivingBody {
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
                self.seat.arrived();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let nothing = || SizeHint::with_exact(0);
        self.rest.as_ref().map_or_else(nothing, Body::size_hint)
    }
}

impl Drop for ArrivingBody {
    fn drop(&mut self) {
        if self.drained
            && let (Some(body), Ok(runtime)) = (self.rest.take(), Handle::try_current())
        {
            let (seat, overdue) = (Arc::clone(&self.seat), self.overdue.clone());
            runtime.spawn(async move {
                let drained = timeout(DRAIN_TIME, drain(body, &seat));
                if overdue.run_until_cancelled(drained).await == Some(Ok(true)) {
                    seat.arrived();
                }
            });
        }
    }
}

/// Whether the end came.
async fn drain(mut body: Incoming, seat: &Seat) -> bool {
    let mut read = 0_usize;
    while read < DRAIN_BYTES {
        match timeout(DRAIN_SILENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                seat.threw_away(bytes);
                read += bytes;
            }
            Ok(None) => return true,
            Ok(Some(Err(_))) | Err(_) => return false,
        }
    }
    false
}
