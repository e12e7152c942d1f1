//! How a proxy treats its connections.

use std::time::Duration;

/// How a [`TcpProxy`](crate::TcpProxy) treats bytes and connections.
///
/// A dropped direction behaves like TCP over a network that loses every packet until another kind is set: the sender's bytes fill the buffers
/// until it can write no more, and arrive later, as if retransmitted. The end of a connection is held back like its bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Traffic {
    /// Everything is forwarded at once.
    Pass,
    /// Nothing listens: new connections are refused, open ones are reset.
    Refuse,
    /// New connections are accepted and reset at once, open ones are reset.
    Reset,
    /// Half-open: nothing from a client arrives. Connections stay open; new ones are accepted, and reach the server later.
    DropToServer,
    /// Half-open: nothing from the server arrives.
    DropToClient,
    /// Nothing arrives on either side.
    DropBoth,
    /// Each direction is delayed by this much. The order is kept.
    Latency(Duration),
    /// Bytes per second, of each direction of each connection.
    Throttle(u32),
    /// PostgreSQL without TLS: a `COMMIT` (a simple query, as sqlx sends it) or a call of `accept_orders` or `void_order` (a prepared
    /// statement) reaches the server, which executes it. Its answer is dropped and the connection is reset, so that the client does not know
    /// the outcome. This also happens to those in flight when another kind of traffic is set.
    SwallowCommitAnswer,
}

impl Traffic {
    pub(super) fn listens(&self) -> bool {
        *self != Self::Refuse
    }

    pub(super) fn resets(&self) -> bool {
        matches!(self, Self::Refuse | Self::Reset)
    }

    pub(super) fn reaches_server(&self) -> bool {
        !matches!(self, Self::DropToServer | Self::DropBoth)
    }

    pub(super) fn reaches_client(&self) -> bool {
        !matches!(self, Self::DropToClient | Self::DropBoth)
    }
}
