//! The plans of all statements that a session executes, including those within functions: PostgreSQL's module `auto_explain` sends them as
//! notices, which sqlx passes to `tracing`.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use serde_json::Value;
use sqlx::PgConnection;
use tracing::field::{Field, Visit};
use tracing::instrument::WithSubscriber as _;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::process::locked;

/// Explains every statement, with the actual rows and blocks of each step.
const ENABLE: &str = "
    LOAD 'auto_explain';
    SET auto_explain.log_level = 'notice';
    SET auto_explain.log_min_duration = 0;
    SET auto_explain.log_nested_statements = on;
    SET auto_explain.log_analyze = on;
    SET auto_explain.log_buffers = on;
    SET auto_explain.log_timing = off;
    SET auto_explain.log_format = 'json';
    SET client_min_messages = 'notice'";

/// A statement that was executed.
#[derive(Debug)]
pub(super) struct Executed {
    pub(super) text: String,
    /// Its plan, with the actual rows and blocks of each step.
    pub(super) plan: Value,
}

/// Makes a session send the plans of its statements from now on.
pub(super) async fn enable(session: &mut PgConnection) -> anyhow::Result<()> {
    let enabled = sqlx::raw_sql(ENABLE).execute(session).await;
    enabled.context(
        "could not load auto_explain, which is one of PostgreSQL's contrib modules and needs a superuser",
    )?;
    Ok(())
}

/// Does work, and returns its result and the statements that were executed for it.
pub(super) async fn capture<T>(work: impl Future<Output = T>) -> anyhow::Result<(T, Vec<Executed>)> {
    let notices = Notices::default();
    let outcome = work.with_subscriber(notices.clone()).await;
    let executed: anyhow::Result<Vec<Executed>> = locked(&notices.0)
        .iter()
        .filter_map(|notice| Some(notice.split_once("plan:\n")?.1))
        .map(Executed::read)
        .collect();
    Ok((outcome, executed?))
}

impl Executed {
    fn read(json: &str) -> anyhow::Result<Self> {
        let message: Value = serde_json::from_str(json)?;
        Ok(Self {
            text: message["Query Text"].as_str().context("no text")?.to_owned(),
            plan: message.get("Plan").context("no plan")?.clone(),
        })
    }
}

/// Collects the notices of PostgreSQL.
#[derive(Debug, Clone, Default)]
struct Notices(Arc<Mutex<Vec<String>>>);

impl Subscriber for Notices {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::postgres::notice"
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Message(self));
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

struct Message<'a>(&'a Notices);

impl Visit for Message<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            locked(&self.0.0).push(value.to_owned());
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn Debug) {}
}
