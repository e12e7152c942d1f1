//! Projects the write model into the read model.
