-- The write model: the golden source. What the rules below refuse is refused to every program, ours and others.
-- Never edit this file: refinery compares its bytes with what was applied. Changes go into V2.

-- Statement-level, so that a statement which happens to match no row is refused as well.
CREATE FUNCTION refuse_change() RETURNS trigger
    LANGUAGE plpgsql AS
$$
BEGIN
    RAISE EXCEPTION '% of table % is refused: %', lower(TG_OP), TG_TABLE_NAME, TG_ARGV[0]
        USING ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
END
$$;

COMMENT ON FUNCTION refuse_change() IS 'Trigger function: fails the statement; its argument is the reason given to the caller';


CREATE TABLE client
(
    id    bigint       NOT NULL GENERATED ALWAYS AS IDENTITY,
    email varchar(254) NOT NULL,
    CONSTRAINT client_pkey PRIMARY KEY (id),
    CONSTRAINT client_email_key UNIQUE (email),
    CONSTRAINT client_email_check CHECK (email LIKE '_%@_%')
);

COMMENT ON TABLE client IS 'Who may place orders';
COMMENT ON COLUMN client.id IS 'Drawn by the database';
COMMENT ON COLUMN client.email IS 'Where the client is reached; 254 characters is the longest address SMTP carries';

INSERT INTO client (email) VALUES ('customer@example.com');


CREATE TABLE currency
(
    id   bigint   NOT NULL GENERATED ALWAYS AS IDENTITY,
    iso3 char(3)  NOT NULL,
    dp   smallint NOT NULL,
    CONSTRAINT currency_pkey PRIMARY KEY (id),
    CONSTRAINT currency_iso3_key UNIQUE (iso3),
    CONSTRAINT currency_iso3_check CHECK (iso3 ~ '^[A-Z]{3}$'),
    -- Amounts are numeric(12, 2): a currency with more decimals would be rounded silently.
    CONSTRAINT currency_dp_check CHECK (dp BETWEEN 0 AND 2)
);

COMMENT ON TABLE currency IS 'The fiat currencies in which BTC is bought';
COMMENT ON COLUMN currency.id IS 'Drawn by the database';
COMMENT ON COLUMN currency.iso3 IS 'ISO 4217 alphabetic code';
COMMENT ON COLUMN currency.dp IS 'Decimal places of an amount in this currency';

INSERT INTO currency (iso3, dp) VALUES ('USD', 2), ('GBP', 2), ('EUR', 2);


-- One row that every batch of orders locks first and updates once. The free space keeps its new versions on one page, without
-- an index entry each (HOT); the threshold has dead versions removed after hundreds of batches, not after the default's share of a table.
CREATE TABLE buy_order_running_total
(
    singleton  boolean        NOT NULL DEFAULT true,
    btc_amount numeric(12, 8) NOT NULL,
    CONSTRAINT buy_order_running_total_pkey PRIMARY KEY (singleton),
    CONSTRAINT buy_order_running_total_singleton_check CHECK (singleton),
    CONSTRAINT buy_order_running_total_btc_amount_check CHECK (btc_amount BETWEEN 0 AND 100)
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

COMMENT ON TABLE buy_order_running_total IS 'The BTC of all orders; exactly one row, and the lock that orders the writers';
COMMENT ON COLUMN buy_order_running_total.singleton IS 'Always true: as the primary key it leaves room for one row';
COMMENT ON COLUMN buy_order_running_total.btc_amount IS 'Sum of buy_order.btc_amount, never above the cap of 100 BTC';

INSERT INTO buy_order_running_total (btc_amount) VALUES (0);

CREATE TRIGGER buy_order_running_total_keeps_its_row
    BEFORE DELETE OR TRUNCATE
    ON buy_order_running_total
    FOR EACH STATEMENT
EXECUTE FUNCTION refuse_change('without its row no order could be counted or locked');


CREATE TABLE buy_order
(
    id              bigint         NOT NULL GENERATED ALWAYS AS IDENTITY,
    created_at      timestamptz    NOT NULL DEFAULT clock_timestamp(),
    external_id     uuid           NOT NULL,
    client_id       bigint         NOT NULL,
    currency_id     bigint         NOT NULL,
    currency_amount numeric(12, 2) NOT NULL,
    btc_rate        numeric(20, 8) NOT NULL,
    btc_amount      numeric(11, 8) NOT NULL,
    CONSTRAINT buy_order_pkey PRIMARY KEY (id),
    CONSTRAINT buy_order_external_id_key UNIQUE (external_id),
    CONSTRAINT buy_order_client_id_fkey FOREIGN KEY (client_id) REFERENCES client (id),
    CONSTRAINT buy_order_currency_id_fkey FOREIGN KEY (currency_id) REFERENCES currency (id),
    CONSTRAINT buy_order_currency_amount_check CHECK (currency_amount > 0 AND currency_amount < 1000000000),
    CONSTRAINT buy_order_btc_rate_check CHECK (btc_rate > 0),
    CONSTRAINT buy_order_btc_amount_check CHECK (btc_amount > 0 AND btc_amount <= 100)
);

COMMENT ON TABLE buy_order IS 'Accepted orders, append-only';
COMMENT ON COLUMN buy_order.id IS 'Drawn under the lock of the running total: the order of ids is the order of commits and of created_at';
COMMENT ON COLUMN buy_order.created_at IS 'When the order was written, drawn under the lock of the running total';
COMMENT ON COLUMN buy_order.external_id IS 'The id clients see';
COMMENT ON COLUMN buy_order.client_id IS 'Whose order it is';
COMMENT ON COLUMN buy_order.currency_id IS 'Currency of currency_amount';
COMMENT ON COLUMN buy_order.currency_amount IS 'Fiat to spend';
COMMENT ON COLUMN buy_order.btc_rate IS 'Fiat per BTC, as quoted when the order was accepted';
COMMENT ON COLUMN buy_order.btc_amount IS 'currency_amount / btc_rate, rounded up to 8 decimal places';

CREATE TRIGGER buy_order_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE
    ON buy_order
    FOR EACH STATEMENT
EXECUTE FUNCTION refuse_change('orders are append-only');


CREATE TABLE buy_order_idempotence_cache
(
    client_id       bigint         NOT NULL,
    currency_id     bigint         NOT NULL,
    currency_amount numeric(12, 2) NOT NULL,
    idempotence_key uuid           NOT NULL,
    created_at      timestamptz    NOT NULL DEFAULT clock_timestamp(),
    buy_order_id    bigint         NOT NULL,
    CONSTRAINT buy_order_idempotence_cache_pkey PRIMARY KEY (client_id, currency_id, currency_amount, idempotence_key),
    CONSTRAINT buy_order_idempotence_cache_client_id_fkey FOREIGN KEY (client_id) REFERENCES client (id),
    CONSTRAINT buy_order_idempotence_cache_currency_id_fkey FOREIGN KEY (currency_id) REFERENCES currency (id),
    CONSTRAINT buy_order_idempotence_cache_buy_order_id_fkey FOREIGN KEY (buy_order_id) REFERENCES buy_order (id),
    CONSTRAINT buy_order_idempotence_cache_currency_amount_check CHECK (currency_amount > 0 AND currency_amount < 1000000000)
);

COMMENT ON TABLE buy_order_idempotence_cache IS 'Which order a request made, for ever: a repeat is answered from here';
COMMENT ON COLUMN buy_order_idempotence_cache.client_id IS 'Who asked';
COMMENT ON COLUMN buy_order_idempotence_cache.currency_id IS 'Currency that was asked for';
COMMENT ON COLUMN buy_order_idempotence_cache.currency_amount IS 'Amount that was asked for: 1, 1.0 and 1.00 are one amount';
COMMENT ON COLUMN buy_order_idempotence_cache.idempotence_key IS 'The key that the client chose';
COMMENT ON COLUMN buy_order_idempotence_cache.created_at IS 'When the key was first used';
COMMENT ON COLUMN buy_order_idempotence_cache.buy_order_id IS 'The order that the first request made';

CREATE TRIGGER buy_order_idempotence_cache_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE
    ON buy_order_idempotence_cache
    FOR EACH STATEMENT
EXECUTE FUNCTION refuse_change('a forgotten key would let one request make two orders');


-- Rows live for milliseconds: written with the order, claimed by a relay (an update), deleted once the broker has confirmed.
-- Half-filled pages keep the claim's new version next to the old one (HOT), and a fixed threshold keeps the dead rows of a busy
-- hour from piling up behind a share of a table that is nearly always empty.
CREATE TABLE outbox
(
    id            bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    buy_order_id  bigint      NOT NULL,
    traceparent   text,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_until timestamptz,
    CONSTRAINT outbox_pkey PRIMARY KEY (id),
    CONSTRAINT outbox_buy_order_id_fkey FOREIGN KEY (buy_order_id) REFERENCES buy_order (id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

COMMENT ON TABLE outbox IS 'One row per event that the broker has not confirmed yet';
COMMENT ON COLUMN outbox.id IS 'The order in which events are published';
COMMENT ON COLUMN outbox.buy_order_id IS 'The order that the event tells of';
COMMENT ON COLUMN outbox.traceparent IS 'W3C trace context of the request that made the event, if it had one';
COMMENT ON COLUMN outbox.created_at IS 'When the event was written';
COMMENT ON COLUMN outbox.claimed_until IS 'Until then one relay is publishing it and others leave it alone; null or past: free';
