-- A page is one range of this index, read backwards from the cursor: a client's orders below it that are not voided, newest first.
--
-- It is built in the transaction of this migration: some seconds for ten million orders, in which nothing is projected, and messages wait in
-- the queue. Pages go on, which is why it is no part of version 2: there they would wait for the lock of the new column.
--
-- buy_order_read_model_page_idx stays for one more release, because fetch_buy_orders of the last one reads by it during the upgrade.
CREATE INDEX buy_order_read_model_shown_idx ON buy_order_read_model (client_id, id) WHERE voided_at IS NULL;
