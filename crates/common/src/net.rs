//! TCP connections to dependencies: every address of a host name is tried, and a dead connection is noticed.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, ToSocketAddrs, lookup_host};
use tokio::time::timeout;

/// A connection that is idle for this long is probed. Middleboxes drop idle connections after minutes.
const KEEPALIVE_TIME: Duration = Duration::from_secs(10);

/// Time between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// The kernel closes a connection whose peer has acknowledged nothing for this long. Together with [`KEEPALIVE_TIME`] it is less than the
/// 30 s within which everything works again after an outage.
const USER_TIMEOUT: Duration = Duration::from_secs(15);

/// Connects to the first address of a host that answers. They are tried in the order of the resolver. `limit` bounds the name lookup and
/// each attempt. Keepalive is on.
///
/// # Errors
/// The name has no address, or no address can be reached. The error names each address with its reason.
pub async fn connect(host: impl ToSocketAddrs, limit: Duration) -> io::Result<TcpStream> {
    let mut failures = Vec::new();
    let mut kind = io::ErrorKind::NotFound;
    for address in with_timeout(limit, lookup_host(host)).await? {
        match with_timeout(limit, TcpStream::connect(address)).await {
            Ok(stream) => {
                set_keepalive(&stream)?;
                return Ok(stream);
            }
            Err(error) => {
                kind = error.kind();
                failures.push(format!("{address}: {error}"));
            }
        }
    }
    if failures.is_empty() {
        failures.push("the name has no address".to_owned());
    }
    Err(io::Error::new(kind, failures.join("; ")))
}

/// Makes the kernel close this connection when its peer is gone, also while nothing is sent. Otherwise a cut cable, or a middlebox that has
/// dropped the connection, would go unnoticed for a quarter of an hour, or for ever.
fn set_keepalive(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&probes)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

async fn with_timeout<T>(limit: Duration, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, future).await.unwrap_or_else(|_| {
        let text = format!("no answer within {} s", limit.as_secs_f32());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(500);

    /// The address of a host that answers nothing: the accept queue of its listener is full, so that the kernel drops new connections. Keep
    /// the returned sockets for as long as it is needed.
    async fn silent_address() -> (SocketAddr, Vec<TcpStream>, Socket) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = timeout(LIMIT, TcpStream::connect(address)).await {
            waiting.push(stream);
        }
        (address, waiting, listener)
    }

    #[tokio::test]
    async fn an_address_that_is_silent_costs_its_limit_and_the_next_one_is_tried() {
        let (silent, _waiting, _listener) = silent_address().await;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let good = listener.local_addr().unwrap();
        let begun = Instant::now();
        let stream = connect(&[silent, good][..], LIMIT).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert!(begun.elapsed() >= LIMIT && begun.elapsed() < 4 * LIMIT);
    }

    #[tokio::test]
    async fn where_no_address_answers_each_is_named_with_its_reason() {
        let (silent, _waiting, _listener) = silent_address().await;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let closed = listener.local_addr().unwrap();
        drop(listener);
        let error = connect(&[silent, closed][..], LIMIT).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("{silent}: no answer within 0.5 s")),
            "{text}"
        );
        assert!(text.contains(&format!("{closed}: Connection refused")), "{text}");
        assert!(connect(&[][..], LIMIT).await.is_err());
    }

    #[tokio::test]
    async fn a_connection_is_probed_and_given_up_within_half_a_minute() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = connect(("localhost", port), LIMIT).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        let noticed = socket.tcp_keepalive_time().unwrap() + socket.tcp_user_timeout().unwrap().unwrap();
        assert!(noticed < Duration::from_secs(30), "{noticed:?}");
    }
}
