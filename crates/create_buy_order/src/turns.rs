//! A queue in which each client has its turn: one client's many orders do not keep those of the others waiting.

use std::collections::{HashMap, VecDeque};

/// Waiting items of each client, oldest first.
#[derive(Debug)]
pub(crate) struct Turns<T> {
    capacity: usize,
    waiting: HashMap<i64, VecDeque<T>>,
    /// Each client that has waiting items, once. The first one's turn is next.
    clients: VecDeque<i64>,
    len: usize,
}

impl<T> Turns<T> {
    /// A queue for about this many items.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            waiting: HashMap::new(),
            clients: VecDeque::new(),
            len: 0,
        }
    }

    /// Whether the client may add an item. When the queue is full, only clients that have less than their share of it may.
    pub(crate) fn has_room(&self, client: i64) -> bool {
        let own = self.waiting.get(&client).map_or(0, VecDeque::len);
        let clients = self.clients.len() + usize::from(own == 0);
        self.len < self.capacity || own < self.capacity / clients
    }

    /// Adds an item.
    pub(crate) fn push(&mut self, client: i64, item: T) {
        let own = self.waiting.entry(client).or_default();
        if own.is_empty() {
            self.clients.push_back(client);
        }
        own.push_back(item);
        self.len += 1;
    }

    /// Takes up to `limit` items, one of each client in turn, and at most `each` of one client.
    pub(crate) fn take(&mut self, limit: usize, each: usize) -> Vec<T> {
        let mut taken = Vec::with_capacity(limit.min(self.len));
        let mut of_client: HashMap<i64, usize> = HashMap::new();
        let mut for_later = Vec::new();
        while taken.len() < limit
            && let Some(client) = self.clients.pop_front()
        {
            let Some(own) = self.waiting.get_mut(&client) else {
                continue;
            };
            taken.extend(own.pop_front());
            let count = of_client.entry(client).or_default();
            *count += 1;
            if own.is_empty() {
                self.waiting.remove(&client);
            } else if *count < each {
                self.clients.push_back(client);
            } else {
                for_later.push(client);
            }
        }
        self.clients.extend(for_later);
        self.len -= taken.len();
        taken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clients_take_turns_and_each_keeps_its_own_order() {
        let mut turns = Turns::new(100);
        for (client, item) in [(1, "a"), (1, "b"), (1, "c"), (2, "x"), (3, "y"), (2, "z")] {
            turns.push(client, item);
        }
        assert_eq!(turns.take(4, 100), ["a", "x", "y", "b"]);
        assert_eq!(turns.take(100, 100), ["z", "c"]);
        assert!(turns.is_empty());
        assert!(turns.take(1, 1).is_empty());
    }

    #[test]
    fn one_client_has_at_most_its_part_of_what_is_taken_and_the_next_turn_is_another_ones() {
        let mut turns = Turns::new(100);
        for item in 0..10 {
            turns.push(1, item);
        }
        assert_eq!(turns.take(100, 3), [0, 1, 2]);
        turns.push(2, 20);
        assert_eq!(turns.take(100, 3), [3, 20, 4, 5]);
        assert_eq!(turns.take(100, 100), [6, 7, 8, 9]);
    }

    #[test]
    fn a_full_queue_still_takes_items_of_clients_that_have_less_than_their_share() {
        let mut turns = Turns::new(4);
        for item in 0..4 {
            turns.push(1, item);
        }
        assert!(!turns.has_room(1));
        for item in [20, 21] {
            assert!(turns.has_room(2));
            turns.push(2, item);
        }
        assert!(!turns.has_room(2) && !turns.has_room(1));
        assert_eq!(turns.take(100, 100), [0, 20, 1, 21, 2, 3]);
        assert!(turns.has_room(1));
    }

    proptest! {
        #[test]
        fn what_was_added_is_taken_once_and_in_the_order_of_its_client(
            steps in prop::collection::vec((1_i64..5, 0_usize..8), 0..200),
            capacity in 1_usize..20,
        ) {
            let mut turns = Turns::new(capacity);
            let mut added: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
            let mut taken: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
            for (number, (client, limit)) in steps.into_iter().enumerate() {
                if turns.has_room(client) {
                    turns.push(client, (client, number));
                    added.entry(client).or_default().push(number);
                }
                let now = turns.take(limit / 2, limit);
                prop_assert!(now.len() <= limit / 2);
                for (client, number) in now {
                    taken.entry(client).or_default().push(number);
                }
                prop_assert!(turns.len <= capacity * 2);
            }
            for (client, number) in turns.take(usize::MAX, usize::MAX) {
                taken.entry(client).or_default().push(number);
            }
            prop_assert!(turns.is_empty());
            prop_assert_eq!(taken, added);
        }
    }
}
