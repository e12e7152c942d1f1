//! Starts the process; nothing else.

fn main() {}
