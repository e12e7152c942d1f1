//! Async client of Fluentd's forward protocol.
