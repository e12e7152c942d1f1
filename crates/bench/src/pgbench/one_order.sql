-- One order per transaction, with the rows and the locks of a batch of one in create_buy_order, and as few round trips.
\set key_front random(1, 9223372036854775806)
\set key_back random(1, 9223372036854775806)
BEGIN;
SELECT btc_amount FROM buy_order_running_total FOR UPDATE;
SELECT o.id, o.external_id, o.created_at, o.currency_amount, o.btc_rate, o.btc_amount
  FROM buy_order_idempotence_cache AS cache
  JOIN buy_order AS o ON o.id = cache.buy_order_id
 WHERE cache.client_id = 1
   AND cache.currency_id = (SELECT currency.id FROM currency WHERE currency.iso3 = 'USD')
   AND cache.currency_amount = 0.01
   AND cache.idempotence_key = (lpad(to_hex(:key_front::bigint), 16, '0') || lpad(to_hex(:key_back::bigint), 16, '0'))::uuid
 LIMIT 1;
WITH created AS (
    INSERT INTO buy_order (external_id, client_id, currency_id, currency_amount, btc_rate, btc_amount)
    SELECT gen_random_uuid(), 1, currency.id, 0.01, 48478.88, 0.00000021 FROM currency WHERE iso3 = 'USD'
    RETURNING id, external_id, created_at, currency_id, currency_amount, btc_rate, btc_amount
), remembered AS (
    INSERT INTO buy_order_idempotence_cache (client_id, currency_id, currency_amount, idempotence_key, buy_order_id)
    SELECT 1, currency_id, currency_amount, (lpad(to_hex(:key_front::bigint), 16, '0') || lpad(to_hex(:key_back::bigint), 16, '0'))::uuid, id
      FROM created
), announced AS (
    INSERT INTO outbox (buy_order_id, traceparent) SELECT id, NULL FROM created
), counted AS (
    UPDATE buy_order_running_total SET btc_amount = btc_amount + 0.00000021
)
SELECT * FROM created;
COMMIT;
