-- The look-up of the order of a request, for one of the orders of a run, as create_buy_order makes it, which looks up several by one
-- statement when they are asked for at the same time.
\set number random(0, :keys - 1)
SELECT o.id, o.external_id, o.created_at, o.currency_amount, o.btc_rate, o.btc_amount
  FROM buy_order_idempotence_cache AS cache
  JOIN buy_order AS o ON o.id = cache.buy_order_id
 WHERE cache.client_id = 1
   AND cache.currency_id = (SELECT currency.id FROM currency WHERE currency.iso3 = 'USD')
   AND cache.currency_amount = 0.01
   AND cache.idempotence_key = (:run::text || '-0000-4000-8000-' || lpad(to_hex(:number::bigint), 12, '0'))::uuid
 LIMIT 1;
