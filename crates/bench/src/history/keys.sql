INSERT INTO buy_order_idempotence_cache (client_id, currency_id, currency_amount, idempotence_key, created_at, buy_order_id)
SELECT 1, currency.id, 0.01,
       (lpad(to_hex((number - $1 - 1) * $4), 12, '0') || '40008000' || lpad(to_hex(number), 12, '0'))::uuid,
       $3 + number * interval '1 microsecond', number
  FROM currency, generate_series($1 + 1, $2) AS number
 WHERE currency.iso3 = 'USD'
