-- Many orders per transaction: the call of accept_orders, as create_buy_order makes it for orders that arrive together.
SELECT index, verdict, id, external_id, created_at, currency_amount, btc_rate, btc_amount, void_reason
  FROM accept_orders(
       {random_uuids},
       array_fill(1::bigint, ARRAY[{orders}]),
       array_fill('USD'::text, ARRAY[{orders}]),
       array_fill(0.01, ARRAY[{orders}]),
       {random_uuids},
       array_fill(48478.88, ARRAY[{orders}]),
       array_fill(0.00000021, ARRAY[{orders}]),
       array_fill(NULL::text, ARRAY[{orders}]),
       array_fill(NULL::text, ARRAY[{orders}]),
       NULL);
