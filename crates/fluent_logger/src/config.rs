//! What a user sets, and what a user is told.

use std::time::Duration;

/// Where the server is, and how hard to try.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name or address of the forward server. A name is resolved anew at each attempt.
    pub host: String,
    /// TCP port of the forward server, usually 24224.
    pub port: u16,
    /// Pause after the first failed attempt. It doubles up to 30 s, and each pause is cut by a random part of
    /// up to a half, so that many clients do not come back at the same moment. An acknowledged batch resets it.
    pub retry: Duration,
    /// Most events held at once, waiting or sent but not acknowledged. Beyond it the oldest waiting is dropped.
    pub buffer_events: usize,
    /// Most events sent before their acknowledgements are awaited. At most `buffer_events`.
    pub batch_events: usize,
    /// Longest time the first event of a batch waits for others.
    pub batch_wait: Duration,
    /// Longest silence of the server while it owes an acknowledgement, and longest time it may refuse to take
    /// any bytes. After that the connection is given up, and what was not acknowledged is sent again.
    pub ack_timeout: Duration,
}

impl Config {
    /// Good values for a service that logs up to some thousand events a second.
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

    /// Values that would make the client spin or never send are moved to the nearest that work.
    pub(crate) fn clamped(mut self) -> Self {
        self.retry = self.retry.max(Duration::from_millis(10));
        self.buffer_events = self.buffer_events.max(1);
        self.batch_events = self.batch_events.clamp(1, self.buffer_events);
        self
    }
}

/// What became of the connection, as told to the callback given to [`start`](crate::start).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// A connection is open. Told once per connection.
    Connected,
    /// A connection could not be opened, or broke, or the server did not acknowledge. Told once per attempt.
    ConnectFailed {
        /// What went wrong, in words.
        error: String,
    },
    /// Events were dropped because the buffer was full. Told at each connection, at the end, and in between
    /// not more often than every 10 s.
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
