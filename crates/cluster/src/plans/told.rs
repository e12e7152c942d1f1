//! What PostgreSQL tells of each statement that a session executes, those within functions included: its module auto_explain sends their plans
//! as notices, which sqlx hands to `tracing`.

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

/// Of every statement, with what each step of its plan did.
const ASK: &str = "
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
pub(super) struct Told {
    pub(super) text: String,
    /// Its plan, with what each step did.
    pub(super) plan: Value,
}

/// Has a session tell of its statements from now on.
pub(super) async fn ask(session: &mut PgConnection) -> anyhow::Result<()> {
    let asked = sqlx::raw_sql(ASK).execute(session).await;
    asked.context(
        "auto_explain, which comes with PostgreSQL's contrib modules, and which a superuser may load",
    )?;
    Ok(())
}

/// The outcome of work, and the statements that were executed for it.
pub(super) async fn during<T>(work: impl Future<Output = T>) -> anyhow::Result<(T, Vec<Told>)> {
    let notices = Notices::default();
    let outcome = work.with_subscriber(notices.clone()).await;
    let told: anyhow::Result<Vec<Told>> = locked(&notices.0)
        .iter()
        .filter_map(|notice| Some(notice.split_once("plan:\n")?.1))
        .map(Told::read)
        .collect();
    Ok((outcome, told?))
}

impl Told {
    fn read(json: &str) -> anyhow::Result<Self> {
        let told: Value = serde_json::from_str(json)?;
        Ok(Self {
            text: told["Query Text"].as_str().context("no text")?.to_owned(),
            plan: told.get("Plan").context("no plan")?.clone(),
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
