INSERT INTO buy_order (id, created_at, external_id, client_id, currency_id, currency_amount, idempotence_key, btc_rate, btc_amount)
    OVERRIDING SYSTEM VALUE
SELECT number, $3 + number * interval '1 microsecond', spread.uuid, 1, currency.id, 0.01, spread.uuid, 1000000, 0.00000001
  FROM currency, generate_series($1 + 1, $2) AS number
 CROSS JOIN LATERAL (SELECT (lpad(to_hex((number - $1 - 1) * $4), 12, '0') || '40008000' || lpad(to_hex(number), 12, '0'))::uuid AS uuid)
       AS spread
 WHERE currency.iso3 = 'USD'
