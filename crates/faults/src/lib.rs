//! The fault suite. It starts a cluster of real processes, lets clients place orders and read pages, injects one fault after the other, and
//! finally compares the data in the databases with the answers that the clients got.
//!
//! In reading order: [`scenarios`] are the faults; [`run`] runs one scenario; [`load`] are the clients, and [`ledger`] is what they were
//! told; [`operator`] voids orders, and [`voids`] is what it was told; [`stage`] makes faults and waits for recovery; [`watcher`] checks the databases meanwhile; [`audit`] checks everything at the end;
//! [`report`] counts.
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
pub mod operator;
pub mod voids;

pub mod stage;
pub mod watcher;

pub mod audit;
pub mod books;
pub mod metrics;
pub mod violations;
pub mod vitals;

pub mod report;
