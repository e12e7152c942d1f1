-- 1: the currency that the write model's migration inserts first, USD.
INSERT INTO buy_order_read_model (id, external_id, client_id, created_at, currency_id, currency_iso3, currency_amount, btc_rate, btc_amount)
SELECT number,
       (lpad(to_hex((number - $1 - 1) * $4), 12, '0') || '40008000' || lpad(to_hex(number), 12, '0'))::uuid,
       1, $3 + number * interval '1 microsecond', 1, 'USD', 0.01, 1000000, 0.00000001
  FROM generate_series($1 + 1, $2) AS number
