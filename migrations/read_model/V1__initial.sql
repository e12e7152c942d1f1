-- The read model: what pages of orders are served from. Everything here can be rebuilt from the write model.
-- Never edit this file: refinery compares its bytes with what was applied. Changes go into V2.

CREATE TABLE buy_order_read_model
(
    id              bigint         NOT NULL,
    external_id     uuid           NOT NULL,
    client_id       bigint         NOT NULL,
    created_at      timestamptz    NOT NULL,
    currency_id     bigint         NOT NULL,
    currency_iso3   char(3)        NOT NULL,
    currency_amount numeric(12, 2) NOT NULL,
    btc_rate        numeric(20, 8) NOT NULL,
    btc_amount      numeric(11, 8) NOT NULL,
    CONSTRAINT buy_order_read_model_pkey PRIMARY KEY (id),
    CONSTRAINT buy_order_read_model_external_id_key UNIQUE (external_id),
    CONSTRAINT buy_order_read_model_currency_iso3_check CHECK (currency_iso3 ~ '^[A-Z]{3}$'),
    CONSTRAINT buy_order_read_model_currency_amount_check CHECK (currency_amount > 0),
    CONSTRAINT buy_order_read_model_btc_rate_check CHECK (btc_rate > 0),
    CONSTRAINT buy_order_read_model_btc_amount_check CHECK (btc_amount > 0)
);

COMMENT ON TABLE buy_order_read_model IS 'One row per order of the write model, as pages show it';
COMMENT ON COLUMN buy_order_read_model.id IS 'buy_order.id of the write model: the key that pages are walked by';
COMMENT ON COLUMN buy_order_read_model.external_id IS 'The id clients see, and the cursor they pass back';
COMMENT ON COLUMN buy_order_read_model.client_id IS 'client.id of the write model: whose order it is';
COMMENT ON COLUMN buy_order_read_model.created_at IS 'When the order was written to the write model';
COMMENT ON COLUMN buy_order_read_model.currency_id IS 'currency.id of the write model';
COMMENT ON COLUMN buy_order_read_model.currency_iso3 IS 'ISO 4217 code of currency_amount, so that a page needs no join';
COMMENT ON COLUMN buy_order_read_model.currency_amount IS 'Fiat to spend';
COMMENT ON COLUMN buy_order_read_model.btc_rate IS 'Fiat per BTC, as quoted when the order was accepted';
COMMENT ON COLUMN buy_order_read_model.btc_amount IS 'currency_amount / btc_rate, rounded up to 8 decimal places';

-- A page is one range of this index, read backwards from the cursor: a client's orders below it, newest first.
CREATE INDEX buy_order_read_model_page_idx ON buy_order_read_model (client_id, id);
