-- One order per transaction: the look-up, the lock, the rows and the round trips of an order alone in create_buy_order.
\set key_front random(1, 9223372036854775806)
\set key_back random(1, 9223372036854775806)
{look_up};
\startpipeline
BEGIN;
SELECT btc_amount FROM buy_order_running_total FOR UPDATE;
\endpipeline
WITH created AS (
    INSERT INTO buy_order (external_id, client_id, currency_id, currency_amount, btc_rate, btc_amount)
    SELECT gen_random_uuid(), 1, currency.id, 0.01, 48478.88, 0.00000021 FROM currency
     WHERE iso3 = 'USD'
       AND (SELECT cache.buy_order_id
              FROM buy_order_idempotence_cache AS cache
             WHERE client_id = 1 AND currency_id = currency.id AND currency_amount = 0.01 AND idempotence_key = {key}) IS NULL
    RETURNING id, external_id, created_at, currency_id, currency_amount, btc_rate, btc_amount
), remembered AS (
    INSERT INTO buy_order_idempotence_cache (client_id, currency_id, currency_amount, idempotence_key, buy_order_id)
    SELECT 1, currency_id, currency_amount, {key}, id
      FROM created
), announced AS (
    INSERT INTO outbox (buy_order_id, traceparent) SELECT id, NULL FROM created
), counted AS (
    UPDATE buy_order_running_total SET btc_amount = btc_amount + 0.00000021
)
SELECT * FROM created;
COMMIT;
