//! One value for each service that is asked.

use futures_util::future::join5;

/// A value for each service.
#[derive(Debug, Clone, Default)]
pub struct PerService<T> {
    /// Of `migration`.
    pub migration: T,
    /// Of `btc_price`.
    pub btc_price: T,
    /// Of `create_buy_order`.
    pub create_buy_order: T,
    /// Of `read_model_sync`.
    pub read_model_sync: T,
    /// Of `fetch_buy_orders`.
    pub fetch_buy_orders: T,
}

impl<T> PerService<T> {
    /// What `make` makes of each value.
    pub(crate) fn map<U>(self, mut make: impl FnMut(T) -> U) -> PerService<U> {
        PerService {
            migration: make(self.migration),
            btc_price: make(self.btc_price),
            create_buy_order: make(self.create_buy_order),
            read_model_sync: make(self.read_model_sync),
            fetch_buy_orders: make(self.fetch_buy_orders),
        }
    }

    /// The values by reference.
    pub(crate) fn each_mut(&mut self) -> PerService<&mut T> {
        PerService {
            migration: &mut self.migration,
            btc_price: &mut self.btc_price,
            create_buy_order: &mut self.create_buy_order,
            read_model_sync: &mut self.read_model_sync,
            fetch_buy_orders: &mut self.fetch_buy_orders,
        }
    }

    /// All values.
    pub(crate) fn values(&self) -> [&T; 5] {
        [
            &self.migration,
            &self.btc_price,
            &self.create_buy_order,
            &self.read_model_sync,
            &self.fetch_buy_orders,
        ]
    }
}

impl<F: Future> PerService<F> {
    /// Waits for all of them, at the same time.
    pub(crate) async fn join(self) -> PerService<F::Output> {
        let (migration, btc_price, create_buy_order, read_model_sync, fetch_buy_orders) = join5(
            self.migration,
            self.btc_price,
            self.create_buy_order,
            self.read_model_sync,
            self.fetch_buy_orders,
        )
        .await;
        PerService {
            migration,
            btc_price,
            create_buy_order,
            read_model_sync,
            fetch_buy_orders,
        }
    }
}
