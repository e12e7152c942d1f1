//! The handle with which applications send events.

use std::sync::Arc;
use std::time::SystemTime;

use crate::buffer::Buffer;
use crate::encode::event;
use crate::record::Record;

/// Sends events through the worker. Cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub struct Sender {
    buffer: Arc<Buffer>,
}

impl Sender {
    pub(crate) fn new(buffer: Arc<Buffer>) -> Self {
        Self { buffer }
    }

    /// Puts an event into the buffer. Never blocks and never fails: if the buffer is full, the oldest event is
    /// dropped and counted. An event of more than 1 MiB, or after the end of the worker, is itself dropped and
    /// counted.
    pub fn send(&self, tag: impl Into<String>, time: SystemTime, record: &Record) {
        self.buffer.push(tag.into(), event(time, record));
    }

    /// How many events were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.buffer.counts().dropped
    }
}
