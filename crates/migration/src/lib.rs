//! Brings the schemas of both models and the roles of the services up to date, then answers `/healthcheck`, which the other services wait
//! for. Declares the exchanges and queues of the broker.
//!
//! The migrations are the files under `migrations/` at the top of the repository, embedded at compile time. With `--once` the process
//! does all of this once and exits. Several of these processes may run at once, and each may be killed at any moment.
//!
//! In reading order: [`config`], the start ([`app`]), the migration of one database (`schema`), refinery's access to it
//! (`history`), the roles of the services (`roles`), and the broker (`topology`).

pub mod config;

pub mod app;

mod schema;

mod history;

mod roles;

mod topology;
