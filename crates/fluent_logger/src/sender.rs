//! The side that applications hold.

use std::sync::Arc;
use std::time::SystemTime;

use crate::buffer::Buffer;
use crate::encode::event;
use crate::record::Record;

/// Hands events over to the worker. Cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub struct Sender {
    buffer: Arc<Buffer>,
}

impl Sender {
    pub(crate) fn new(buffer: Arc<Buffer>) -> Self {
        Self { buffer }
    }

    /// Leaves an event in the buffer. Never blocks and never fails: when the buffer is full the oldest event is
    /// dropped and counted. An event of more than 1 MiB, or one that comes after the worker ended, is dropped
    /// and counted itself.
    pub fn send(&self, tag: impl Into<String>, time: SystemTime, record: Record) {
        self.buffer.push(tag.into(), event(time, &record));
    }

    /// How many events were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.buffer.counts().dropped
    }
}
