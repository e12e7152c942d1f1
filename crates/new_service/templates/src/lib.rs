//! Made like `{{model}}`; say here what it does.
//!
//! In reading order: [`config`], what the process does ([`app`]), what it answers ([`routes`]).

pub mod config;

pub mod app;

pub mod routes;
