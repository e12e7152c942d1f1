//! Quotes BTC in a fiat currency.
