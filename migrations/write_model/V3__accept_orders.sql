-- One way into the book: the function accept_orders. The key of a request stands in the row of its order; the outbox holds messages of
-- any kind, ready to be sent; one relay at a time sends them, by a lease.
--
-- Orders, keys and unsent events are carried over, in one transaction: nothing is changed until it commits. Writers wait meanwhile.
LOCK TABLE buy_order_running_total, buy_order, buy_order_idempotence_cache, outbox IN ACCESS EXCLUSIVE MODE;


-- A copy in the order of ids instead of an update of every row: half the writing, and no dead rows.
CREATE TABLE buy_order_with_key
(
    id              bigint         NOT NULL,
    created_at      timestamptz    NOT NULL DEFAULT clock_timestamp(),
    external_id     uuid           NOT NULL,
    client_id       bigint         NOT NULL,
    currency_id     bigint         NOT NULL,
    currency_amount numeric(12, 2) NOT NULL,
    -- An order without a key, or with two, was not written by a service: then this migration fails here, or at the primary key.
    idempotence_key uuid           NOT NULL,
    btc_rate        numeric(20, 8) NOT NULL,
    btc_amount      numeric(11, 8) NOT NULL,
    CONSTRAINT buy_order_currency_amount_check CHECK (currency_amount > 0 AND currency_amount < 1000000000),
    CONSTRAINT buy_order_btc_rate_check CHECK (btc_rate > 0),
    CONSTRAINT buy_order_btc_amount_check CHECK (btc_amount > 0 AND btc_amount <= 100)
);

INSERT INTO buy_order_with_key (id, created_at, external_id, client_id, currency_id, currency_amount, idempotence_key, btc_rate, btc_amount)
SELECT placed.id, placed.created_at, placed.external_id, placed.client_id, placed.currency_id, placed.currency_amount, cache.idempotence_key,
       placed.btc_rate, placed.btc_amount
  FROM buy_order AS placed
  LEFT JOIN buy_order_idempotence_cache AS cache
    ON cache.buy_order_id = placed.id
   AND cache.client_id = placed.client_id
   AND cache.currency_id = placed.currency_id
   AND cache.currency_amount = placed.currency_amount
 ORDER BY placed.id;

-- Ids that were drawn and rolled back are not drawn again.
CREATE TEMPORARY TABLE drawn_ids ON COMMIT DROP AS SELECT last_value, is_called FROM buy_order_id_seq;

ALTER TABLE outbox RENAME TO outbox_of_orders;
ALTER TABLE outbox_of_orders DROP CONSTRAINT outbox_buy_order_id_fkey, DROP CONSTRAINT outbox_pkey;
ALTER SEQUENCE outbox_id_seq RENAME TO outbox_of_orders_id_seq;
DROP TABLE buy_order_idempotence_cache;
DROP TABLE buy_order;

ALTER TABLE buy_order_with_key RENAME TO buy_order;
ALTER TABLE buy_order
    ADD CONSTRAINT buy_order_pkey PRIMARY KEY (id),
    ADD CONSTRAINT buy_order_external_id_key UNIQUE (external_id),
    ADD CONSTRAINT buy_order_request_key UNIQUE (client_id, currency_id, currency_amount, idempotence_key),
    ADD CONSTRAINT buy_order_client_id_fkey FOREIGN KEY (client_id) REFERENCES client (id),
    ADD CONSTRAINT buy_order_currency_id_fkey FOREIGN KEY (currency_id) REFERENCES currency (id),
    ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;
SELECT setval('buy_order_id_seq', last_value, is_called) FROM drawn_ids;

COMMENT ON TABLE buy_order IS 'Accepted orders, append-only';
COMMENT ON COLUMN buy_order.id IS 'Drawn under the lock of the running total: the order of ids is the order of commits and of created_at';
COMMENT ON COLUMN buy_order.created_at IS 'When the order was written, drawn under the lock of the running total';
COMMENT ON COLUMN buy_order.external_id IS 'The id clients see';
COMMENT ON COLUMN buy_order.client_id IS 'Whose order it is';
COMMENT ON COLUMN buy_order.currency_id IS 'Currency of currency_amount';
COMMENT ON COLUMN buy_order.currency_amount IS 'Fiat to spend; 1, 1.0 and 1.00 are one amount';
COMMENT ON COLUMN buy_order.idempotence_key IS 'Chosen by the client: client, currency, amount and key name one order, for ever';
COMMENT ON COLUMN buy_order.btc_rate IS 'Fiat per BTC, as quoted when the order was accepted';
COMMENT ON COLUMN buy_order.btc_amount IS 'currency_amount / btc_rate, rounded up to 8 decimal places';

CREATE TRIGGER buy_order_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE
    ON buy_order
    FOR EACH STATEMENT
EXECUTE FUNCTION refuse_change('orders are append-only');


-- Releases before this one look up keys in a table that is gone. Their log says why, instead of naming a missing table.
CREATE FUNCTION refuse_older_release() RETURNS SETOF buy_order
    LANGUAGE plpgsql AS
$$
BEGIN
    RAISE EXCEPTION 'this write model was upgraded to version 3, and releases that know versions 1 and 2 cannot write to it: start the newer release again, or restore a backup'
        USING ERRCODE = 'object_not_in_prerequisite_state';
END
$$;

COMMENT ON FUNCTION refuse_older_release() IS 'Tells a release that was rolled back why it cannot work';

CREATE VIEW buy_order_idempotence_cache AS
SELECT client_id, currency_id, currency_amount, idempotence_key, created_at, id AS buy_order_id FROM refuse_older_release();

COMMENT ON VIEW buy_order_idempotence_cache IS 'Refuses releases that read the table of this name, which version 3 replaced by buy_order.idempotence_key';


-- Decimals are strings, so that no reader takes them through a float. One line, as it is what the consumers get.
CREATE FUNCTION buy_order_created_payload(placed buy_order, currency_iso3 text) RETURNS text
    LANGUAGE sql STABLE AS
$$
SELECT format(
    '{"id":%s,"client_id":%s,"external_id":"%s","created_at":"%s","currency_id":%s,"currency_iso3":"%s","currency_amount":"%s","btc_rate":"%s","btc_amount":"%s"}',
    (placed).id,
    (placed).client_id,
    (placed).external_id,
    to_char((placed).created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    (placed).currency_id,
    currency_iso3,
    (placed).currency_amount,
    (placed).btc_rate,
    (placed).btc_amount
)
$$;

COMMENT ON FUNCTION buy_order_created_payload(buy_order, text) IS 'The body of the message buy_order_created: an order, as JSON';


-- Rows live for milliseconds: written with what they tell of, deleted once the broker has confirmed. A fixed threshold keeps the dead rows
-- of a busy hour from piling up behind a share of a table that is nearly always empty.
CREATE TABLE outbox
(
    id          bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    type        text        NOT NULL,
    routing_key text        NOT NULL,
    message_id  uuid        NOT NULL,
    payload     text        NOT NULL,
    traceparent text,
    tracestate  text,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT outbox_pkey PRIMARY KEY (id),
    -- AMQP's limit of a short string, and the size that consumers take.
    CONSTRAINT outbox_type_check CHECK (octet_length(type) BETWEEN 1 AND 255),
    CONSTRAINT outbox_routing_key_check CHECK (octet_length(routing_key) BETWEEN 1 AND 255),
    CONSTRAINT outbox_payload_check CHECK (octet_length(payload) <= 65536)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

COMMENT ON TABLE outbox IS 'Messages that the broker has not confirmed yet, ready to be sent';
COMMENT ON COLUMN outbox.id IS 'The order in which messages are sent';
COMMENT ON COLUMN outbox.type IS 'What happened; the property "type" of the message';
COMMENT ON COLUMN outbox.routing_key IS 'Leads the message to its queue';
COMMENT ON COLUMN outbox.message_id IS 'The property "message_id": the same when a message is sent again';
COMMENT ON COLUMN outbox.payload IS 'The body, JSON';
COMMENT ON COLUMN outbox.traceparent IS 'W3C trace context of the request that made the message, if it had one';
COMMENT ON COLUMN outbox.tracestate IS 'W3C trace state that came with traceparent: what other tracers keep of the trace, if anything';
COMMENT ON COLUMN outbox.created_at IS 'When the message was written';

INSERT INTO outbox (type, routing_key, message_id, payload, traceparent, tracestate, created_at)
SELECT 'buy_order_created', 'buy_order', placed.external_id, buy_order_created_payload(placed, currency.iso3), unsent.traceparent,
       unsent.tracestate, unsent.created_at
  FROM outbox_of_orders AS unsent
  JOIN buy_order AS placed ON placed.id = unsent.buy_order_id
  JOIN currency ON currency.id = placed.currency_id
 ORDER BY unsent.id;

DROP TABLE outbox_of_orders;


-- One row, updated every second. The free space keeps its new versions on one page.
CREATE TABLE relay_lease
(
    singleton  boolean     NOT NULL DEFAULT true,
    holder     uuid,
    held_until timestamptz NOT NULL DEFAULT 'epoch',
    CONSTRAINT relay_lease_pkey PRIMARY KEY (singleton),
    CONSTRAINT relay_lease_singleton_check CHECK (singleton)
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

COMMENT ON TABLE relay_lease IS 'Which relay sends the messages of the outbox; exactly one row';
COMMENT ON COLUMN relay_lease.singleton IS 'Always true: as the primary key it leaves room for one row';
COMMENT ON COLUMN relay_lease.holder IS 'The relay that works, by a number it chose at its start';
COMMENT ON COLUMN relay_lease.held_until IS 'Until then the others stand by; 1970 where nobody has it';

INSERT INTO relay_lease DEFAULT VALUES;

CREATE TRIGGER relay_lease_keeps_its_row
    BEFORE DELETE OR TRUNCATE
    ON relay_lease
    FOR EACH STATEMENT
EXECUTE FUNCTION refuse_change('without its row no relay could work');


-- Each array has one element an order. Answers one row an order: "created" with the order, "repeated" with the order that an equal request
-- made before, "over_cap", "no_currency" or "no_client" without one. Orders are decided in the order of the arrays: one that does not fit
-- changes nothing, and a smaller one after it may still fit. A caller that lost the answer repeats the call: what it created is answered as
-- created, by the external id.
CREATE FUNCTION accept_orders(
    external_ids uuid[],
    client_ids bigint[],
    currencies text[],
    currency_amounts numeric[],
    idempotence_keys uuid[],
    btc_rates numeric[],
    btc_amounts numeric[],
    traceparents text[],
    tracestates text[]
)
    RETURNS TABLE
    (
        index           bigint,
        verdict         text,
        id              bigint,
        external_id     uuid,
        created_at      timestamptz,
        currency_amount numeric,
        btc_rate        numeric,
        btc_amount      numeric
    )
    LANGUAGE plpgsql AS
$$
#variable_conflict use_column
DECLARE
    cap CONSTANT numeric := 100;
    orders CONSTANT bigint := cardinality(external_ids);
    room numeric;
    all_fit boolean;
    any_fits boolean;
BEGIN
    -- The lock that puts writers in a row. Each statement after it sees what the writers before have committed.
    SELECT cap - btc_amount INTO STRICT room FROM buy_order_running_total FOR UPDATE;
    SELECT sum(given) <= room, min(given) <= room INTO all_fit, any_fits FROM unnest(btc_amounts) AS given;

    IF orders > 1 AND any_fits AND NOT all_fit THEN
        -- Each by itself, because what fits depends on those before it.
        RETURN QUERY
        SELECT number - 1, one.verdict, one.id, one.external_id, one.created_at, one.currency_amount, one.btc_rate, one.btc_amount
          FROM generate_series(1, orders) AS number
         CROSS JOIN LATERAL accept_orders(
               external_ids[number:number], client_ids[number:number], currencies[number:number], currency_amounts[number:number],
               idempotence_keys[number:number], btc_rates[number:number], btc_amounts[number:number], traceparents[number:number],
               tracestates[number:number]) AS one;
        RETURN;
    END IF;

    -- Ids and times are drawn after sorting. A full join is the one that PostgreSQL never makes by comparing each row with every other; with
    -- "IS NOT NULL" it would be none any more.
    WITH draft AS MATERIALIZED (
        SELECT nextval('buy_order_id_seq') AS id, clock_timestamp() AS created_at, sorted.*
          FROM (SELECT given.*, currency.id AS currency_id
                  FROM unnest(external_ids, client_ids, currencies, currency_amounts, idempotence_keys, btc_rates, btc_amounts, traceparents,
                              tracestates) WITH ORDINALITY
                       AS given (external_id, client_id, currency, currency_amount, idempotence_key, btc_rate, btc_amount, traceparent,
                                 tracestate, number)
                  JOIN currency ON currency.iso3 = given.currency
                 WHERE all_fit
                   AND (SELECT client.id FROM client WHERE client.id = given.client_id) IS NOT NULL
                 ORDER BY given.number) AS sorted
    ), placed AS (
        INSERT INTO buy_order (id, created_at, external_id, client_id, currency_id, currency_amount, idempotence_key, btc_rate, btc_amount)
        OVERRIDING SYSTEM VALUE
        SELECT id, created_at, external_id, client_id, currency_id, currency_amount, idempotence_key, btc_rate, btc_amount FROM draft
        ON CONFLICT ON CONSTRAINT buy_order_request_key DO NOTHING
        RETURNING *
    ), announced AS (
        INSERT INTO outbox (type, routing_key, message_id, payload, traceparent, tracestate)
        SELECT 'buy_order_created', 'buy_order', placed.external_id, buy_order_created_payload(ROW (placed.*)::buy_order, draft.currency),
               draft.traceparent, draft.tracestate
          FROM placed FULL JOIN draft USING (id)
         WHERE coalesce(placed.id, 0) <> 0
         ORDER BY id
    )
    UPDATE buy_order_running_total
       SET btc_amount = btc_amount + (SELECT sum(placed.btc_amount) FROM placed)
     WHERE EXISTS (SELECT FROM placed);

    RETURN QUERY
    SELECT asked.number - 1,
           CASE
               WHEN found.external_id = asked.external_id THEN 'created'
               WHEN found.id IS NOT NULL THEN 'repeated'
               WHEN asked.currency_id IS NULL THEN 'no_currency'
               WHEN (SELECT client.id FROM client WHERE client.id = asked.client_id) IS NULL THEN 'no_client'
               ELSE 'over_cap'
           END,
           found.id, found.external_id, found.created_at, found.currency_amount, found.btc_rate, found.btc_amount
      FROM (SELECT given.number, given.external_id, given.client_id, given.currency_amount::numeric(12, 2) AS currency_amount,
                   given.idempotence_key, (SELECT currency.id FROM currency WHERE currency.iso3 = given.currency) AS currency_id
              FROM unnest(external_ids, client_ids, currencies, currency_amounts, idempotence_keys) WITH ORDINALITY
                   AS given (external_id, client_id, currency, currency_amount, idempotence_key, number)) AS asked
      LEFT JOIN LATERAL (
           SELECT *
             FROM buy_order
            WHERE buy_order.client_id = asked.client_id
              AND buy_order.currency_id = asked.currency_id
              AND buy_order.currency_amount = asked.currency_amount
              AND buy_order.idempotence_key = asked.idempotence_key
            LIMIT 1) AS found ON true;
END
$$;

COMMENT ON FUNCTION accept_orders(uuid[], bigint[], text[], numeric[], uuid[], numeric[], numeric[], text[], text[]) IS
    'The only way an order comes into the book: locks the running total, finds repeats, keeps to the cap, writes orders, messages and total, and answers a verdict for each';
