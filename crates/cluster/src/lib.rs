//! Starts the whole cluster outside compose: private servers, the real binaries, a price simulator.
