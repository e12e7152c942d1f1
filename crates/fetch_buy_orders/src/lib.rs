//! Serves pages of orders from the read model.
