-- Many orders per transaction: the look-up, the lock, the rows and the round trips of orders that are written together in create_buy_order.
{look_up};
\startpipeline
BEGIN;
SELECT btc_amount FROM buy_order_running_total FOR UPDATE;
\endpipeline
WITH draft AS MATERIALIZED (
    SELECT currency.id AS currency_id, given.external_id, given.idempotence_key
      FROM (SELECT gen_random_uuid() AS external_id, gen_random_uuid() AS idempotence_key FROM generate_series(1, {orders})) AS given
      JOIN currency ON currency.iso3 = 'USD'
     WHERE (SELECT cache.buy_order_id
              FROM buy_order_idempotence_cache AS cache
             WHERE cache.client_id = 1
               AND cache.currency_id = currency.id
               AND cache.currency_amount = 0.01
               AND cache.idempotence_key = given.idempotence_key) IS NULL
), created AS (
    INSERT INTO buy_order (external_id, client_id, currency_id, currency_amount, btc_rate, btc_amount)
    SELECT external_id, 1, currency_id, 0.01, 48478.88, 0.00000021 FROM draft
    RETURNING id, external_id, created_at, currency_id, currency_amount, btc_rate, btc_amount
), remembered AS (
    INSERT INTO buy_order_idempotence_cache (client_id, currency_id, currency_amount, idempotence_key, buy_order_id)
    SELECT 1, draft.currency_id, created.currency_amount, draft.idempotence_key, created.id
      FROM created JOIN draft USING (external_id)
), announced AS (
    INSERT INTO outbox (buy_order_id, traceparent) SELECT id, NULL FROM created
), counted AS (
    UPDATE buy_order_running_total SET btc_amount = btc_amount + {orders} * 0.00000021
)
SELECT * FROM created;
COMMIT;
