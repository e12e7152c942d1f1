//! The fault suite. It starts a cluster of real processes, has clients place orders and walk the pages, breaks one thing after the other, and
//! at last holds what is left against what the clients were told.
//!
//! In reading order: [`scenarios`] says what is broken; [`run`] plays one; [`load`] are the clients, and [`ledger`] what they know;
//! [`stage`] waits for recovery; [`watcher`] looks on meanwhile; [`audit`] checks at the end; [`report`] counts.
#![allow(
    clippy::print_stdout,
    reason = "a program for people: its progress goes to the terminal"
)]

pub mod scenario;
pub mod scenarios;

pub mod run;

pub mod client;
pub mod ledger;
pub mod load;

pub mod stage;
pub mod watcher;

pub mod audit;
pub mod books;
pub mod violations;
pub mod vitals;

pub mod report;
