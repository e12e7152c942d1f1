-- One order per transaction: the call of accept_orders, as create_buy_order makes it for an order alone while it has a quote at hand.
\set key_front random(1, 9223372036854775806)
\set key_back random(1, 9223372036854775806)
SELECT index, verdict, id, external_id, created_at, currency_amount, btc_rate, btc_amount, void_reason
  FROM accept_orders(
       ARRAY[gen_random_uuid()],
       ARRAY[1::bigint],
       ARRAY['USD'],
       ARRAY[0.01],
       ARRAY[{key}],
       ARRAY[48478.88],
       ARRAY[0.00000021],
       ARRAY[NULL::text],
       ARRAY[NULL::text],
       NULL);
