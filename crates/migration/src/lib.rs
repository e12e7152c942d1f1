//! Brings the schemas of both models up to date.
