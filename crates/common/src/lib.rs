//! What every service shares: process life, configuration, events, HTTP, broker, money.
