//! Accepts orders, exactly once, and relays them to the queue.
