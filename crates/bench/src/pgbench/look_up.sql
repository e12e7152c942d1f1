-- The look-up of the order of a request, as create_buy_order makes it, for one of the orders of a run.
\set number random(0, :keys - 1)
SELECT asked.place - 1 AS place, o.id, o.external_id, o.created_at, currency.iso3::text AS currency, o.currency_amount, o.btc_rate, o.btc_amount
  FROM unnest(ARRAY[1]::bigint[], ARRAY['USD']::text[], ARRAY[0.01]::numeric[],
              ARRAY[(:run::text || '-0000-4000-8000-' || lpad(to_hex(:number::bigint), 12, '0'))::uuid]) WITH ORDINALITY
       AS asked (client_id, currency, currency_amount, idempotence_key, place)
  JOIN currency ON currency.iso3 = asked.currency
  JOIN buy_order_idempotence_cache AS cache
    ON (cache.client_id, cache.currency_id, cache.currency_amount, cache.idempotence_key)
     = (asked.client_id, currency.id, asked.currency_amount, asked.idempotence_key)
  JOIN buy_order AS o ON o.id = cache.buy_order_id;
