//! The configuration, and the statuses that are reported.

use std::time::Duration;

/// Where the server is, and the limits of the client.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name or address of the forward server. A name is resolved again for each attempt.
    pub host: String,
    /// TCP port of the forward server, usually 24224.
    pub port: u16,
    /// Pause after the first failed attempt. Pauses double up to 30 s, and each is shortened by a random part of
    /// up to a half, so that many clients do not reconnect at the same moment. An acknowledged batch resets them.
    pub retry: Duration,
    /// Maximum number of events that wait or are not acknowledged. Above it the oldest waiting event is dropped.
    pub buffer_events: usize,
    /// Maximum number of events sent before their acknowledgements are awaited. At most `buffer_events`.
    pub batch_events: usize,
    /// Maximum time that the first event of a batch waits for others.
    pub batch_wait: Duration,
    /// Maximum time without an acknowledgement while one is due, and without progress of a write. After that the
    /// client reconnects, and sends what was not acknowledged again.
    pub ack_timeout: Duration,
}

impl Config {
    /// Defaults for a service that logs up to some thousand events per second.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            retry: Duration::from_secs(1),
            buffer_events: 10_000,
            batch_events: 500,
            batch_wait: Duration::from_millis(100),
            ack_timeout: Duration::from_secs(10),
        }
    }

    /// Replaces values that would make the client spin or never send by the nearest that work.
    pub(crate) fn clamped(mut self) -> Self {
        self.retry = self.retry.max(Duration::from_millis(10));
        self.buffer_events = self.buffer_events.max(1);
        self.batch_events = self.batch_events.clamp(1, self.buffer_events);
        self
    }
}

/// What happened, as reported to the callback of [`start`](crate::start).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// A connection was opened. Reported once per connection.
    Connected,
    /// A connection could not be opened, or broke, or the server did not acknowledge. Reported once per attempt.
    ConnectFailed {
        /// What went wrong, in words.
        error: String,
    },
    /// Events were dropped because the buffer was full. Reported at each connection, at the end, and otherwise
    /// at most every 10 s.
    Dropped {
        /// How many since the last such report.
        events: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_work_are_moved_to_the_nearest_that_do() {
        let config = Config {
            retry: Duration::ZERO,
            buffer_events: 0,
            batch_events: 7,
            ..Config::new("log", 24_224)
        }
        .clamped();
        assert_eq!(config.retry, Duration::from_millis(10));
        assert_eq!((config.buffer_events, config.batch_events), (1, 1));
    }
}
