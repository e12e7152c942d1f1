-- Many orders per transaction: the locks, the look-up, the rows and the round trips of a batch in create_buy_order.
\startpipeline
BEGIN;
SELECT FROM buy_order_running_total FOR UPDATE;
\endpipeline
{look_up};
WITH created AS (
    INSERT INTO buy_order (external_id, client_id, currency_id, currency_amount, btc_rate, btc_amount)
    SELECT gen_random_uuid(), 1, currency.id, 0.01, 48478.88, 0.00000021
      FROM currency CROSS JOIN generate_series(1, {orders}) WHERE iso3 = 'USD'
    RETURNING id, external_id, created_at, currency_id, currency_amount, btc_rate, btc_amount
), remembered AS (
    INSERT INTO buy_order_idempotence_cache (client_id, currency_id, currency_amount, idempotence_key, buy_order_id)
    SELECT 1, currency_id, currency_amount, gen_random_uuid(), id
      FROM created
), announced AS (
    INSERT INTO outbox (buy_order_id, traceparent) SELECT id, NULL FROM created
), counted AS (
    UPDATE buy_order_running_total SET btc_amount = btc_amount + {orders} * 0.00000021
)
SELECT * FROM created;
COMMIT;
