-- One page as fetch_buy_orders reads it, which reads several by one statement when they are asked for at the same time.
SELECT o.external_id, o.created_at, o.currency_iso3, o.currency_amount::text, o.btc_rate::text, o.btc_amount::text
  FROM buy_order_read_model AS o
 WHERE (o.client_id, o.id) < (1, :below) AND o.client_id >= 1
 ORDER BY o.client_id DESC, o.id DESC
 LIMIT :page_size;
