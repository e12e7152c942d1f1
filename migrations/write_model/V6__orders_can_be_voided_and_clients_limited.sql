-- An operator can take an order out of the book, and what one client holds of the book can be limited.
--
-- accept_orders gets a last argument and a last column. PostgreSQL calls that another function, so the one before stays for releases that
-- are still running. The version after this one removes it.
--
-- In the order in which accept_orders takes them, so that neither waits for the other.
LOCK TABLE buy_order_running_total, buy_order IN ACCESS EXCLUSIVE MODE;


-- Orders are append-only, so an order that is taken out of the book keeps its row and gets one here.
CREATE TABLE buy_order_void
(
    buy_order_id bigint      NOT NULL,
    reason       text        NOT NULL,
    voided_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    message_id   uuid        NOT NULL DEFAULT gen_random_uuid(),
    CONSTRAINT buy_order_void_pkey PRIMARY KEY (buy_order_id),
    CONSTRAINT buy_order_void_buy_order_id_fkey FOREIGN KEY (buy_order_id) REFERENCES buy_order (id),
    CONSTRAINT buy_order_void_reason_check
        CHECK (btrim(reason) <> '' AND char_length(reason) <= 500 AND reason !~ '[\u0001-\u001f\u007f-\u009f]')
);

COMMENT ON TABLE buy_order_void IS 'Orders that an operator took out of the book, append-only';
COMMENT ON COLUMN buy_order_void.buy_order_id IS 'The order';
COMMENT ON COLUMN buy_order_void.reason IS 'Why, in the words of the operator; clients read it';
COMMENT ON COLUMN buy_order_void.voided_at IS 'When the order was voided, drawn under the lock of the running total';
COMMENT ON COLUMN buy_order_void.message_id IS 'message_id of the message buy_order_voided: the same when it is sent again';

CREATE TRIGGER buy_order_void_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE
    ON buy_order_void
    FOR EACH STATEMENT
EXECUTE FUNCTION refuse_change('voids are append-only');

COMMENT ON TABLE buy_order_running_total IS 'The BTC of all orders that are not voided; exactly one row, and the lock that orders the writers';
COMMENT ON COLUMN buy_order_running_total.btc_amount IS 'Sum of buy_order.btc_amount of orders without a buy_order_void, never above the cap of 100 BTC';


CREATE FUNCTION buy_order_voided_payload(voided buy_order_void, order_external_id uuid) RETURNS text
    LANGUAGE sql STABLE AS
$$
SELECT format(
    '{"id":%s,"external_id":"%s","reason":%s,"voided_at":"%s"}',
    (voided).buy_order_id,
    order_external_id,
    to_json((voided).reason),
    to_char((voided).voided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
)
$$;

COMMENT ON FUNCTION buy_order_voided_payload(buy_order_void, uuid) IS 'The body of the message buy_order_voided, as JSON';


-- Kept only while a limit is asked for, so that it costs nothing without one: accept_orders first adds the orders that are not counted yet.
CREATE TABLE client_running_total
(
    client_id  bigint         NOT NULL,
    btc_amount numeric(12, 8) NOT NULL,
    CONSTRAINT client_running_total_pkey PRIMARY KEY (client_id),
    CONSTRAINT client_running_total_client_id_fkey FOREIGN KEY (client_id) REFERENCES client (id),
    CONSTRAINT client_running_total_btc_amount_check CHECK (btc_amount BETWEEN 0 AND 100)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

COMMENT ON TABLE client_running_total IS 'The BTC of each client''s orders that are counted and not voided';
COMMENT ON COLUMN client_running_total.client_id IS 'Whose orders';
COMMENT ON COLUMN client_running_total.btc_amount IS 'Sum of buy_order.btc_amount of the client''s orders up to buy_order_running_total.counted_to, without voided ones';

ALTER TABLE buy_order_running_total ADD COLUMN counted_to bigint NOT NULL DEFAULT 0;

COMMENT ON COLUMN buy_order_running_total.counted_to IS 'The last order in client_running_total; later ones are not counted yet';


-- After a time without a limit there may be millions of orders to count, under the lock that new orders wait for. So it counts at most as many
-- as the caller says, null for all, and answers whether all are counted.
CREATE FUNCTION count_orders_of_clients(at_most bigint) RETURNS boolean
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = public, pg_temp
    -- PostgreSQL keeps the plan. Made while the table was empty, it would read the whole table. "WHERE singleton" lets it use an index for
    -- the total, too: a scan that is switched off has so high a cost that PostgreSQL would compile the statement at each call.
    SET enable_seqscan = off AS
$$
DECLARE
    counted bigint;
    newest bigint;
    last_here bigint;
BEGIN
    SELECT total.counted_to INTO STRICT counted FROM buy_order_running_total AS total WHERE total.singleton FOR UPDATE;
    newest := coalesce((SELECT placed.id FROM buy_order AS placed ORDER BY placed.id DESC LIMIT 1), counted);
    last_here := least(newest, counted + at_most);
    IF last_here > counted THEN
        INSERT INTO client_running_total AS total (client_id, btc_amount)
        SELECT placed.client_id, sum(placed.btc_amount)
          FROM buy_order AS placed
         WHERE placed.id > counted
           AND placed.id <= last_here
           AND (SELECT buy_order_id FROM buy_order_void WHERE buy_order_id = placed.id) IS NULL
         GROUP BY placed.client_id
         ORDER BY placed.client_id
            ON CONFLICT (client_id) DO UPDATE SET btc_amount = total.btc_amount + excluded.btc_amount;
        UPDATE buy_order_running_total SET counted_to = last_here WHERE singleton;
    END IF;
    RETURN last_here = newest;
END
$$;
REVOKE ALL ON FUNCTION count_orders_of_clients(bigint) FROM PUBLIC;

COMMENT ON FUNCTION count_orders_of_clients(bigint) IS 'Brings client_running_total up to date, at most so many orders further';


-- Answers one row: "voided", "voided_before" with what was said then, or "unknown" where no order has the id.
CREATE FUNCTION void_order(order_external_id uuid, void_reason text)
    RETURNS TABLE (verdict text, id bigint, reason text, voided_at timestamptz)
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = public, pg_temp AS
$$
#variable_conflict use_column
DECLARE
    counted bigint;
    placed buy_order;
    voided buy_order_void;
BEGIN
    -- The lock of accept_orders: each statement after it sees what the writers before have committed.
    SELECT counted_to INTO STRICT counted FROM buy_order_running_total FOR UPDATE;
    SELECT * INTO placed FROM buy_order WHERE external_id = order_external_id;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'unknown', NULL::bigint, NULL::text, NULL::timestamptz;
        RETURN;
    END IF;
    INSERT INTO buy_order_void (buy_order_id, reason) VALUES (placed.id, void_reason)
    ON CONFLICT DO NOTHING
    RETURNING * INTO voided;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'voided_before', buy_order_id, reason, voided_at FROM buy_order_void WHERE buy_order_id = placed.id;
        RETURN;
    END IF;
    UPDATE buy_order_running_total SET btc_amount = btc_amount - placed.btc_amount;
    UPDATE client_running_total SET btc_amount = btc_amount - placed.btc_amount
     WHERE client_id = placed.client_id AND placed.id <= counted;
    INSERT INTO outbox (type, routing_key, message_id, payload)
    VALUES ('buy_order_voided', 'buy_order', voided.message_id, buy_order_voided_payload(voided, placed.external_id));
    RETURN QUERY SELECT 'voided', voided.buy_order_id, voided.reason, voided.voided_at;
END
$$;
REVOKE ALL ON FUNCTION void_order(uuid, text) FROM PUBLIC;

COMMENT ON FUNCTION void_order(uuid, text) IS
    'The only way an order leaves the book: locks the running total, writes the void and its message, and lowers the totals';


-- Each array has one element an order. Answers one row an order: "created" with the order, "repeated" with the order that an equal request
-- made before, "voided" with that order and the reason, "over_cap", "over_client_limit", "no_currency" or "no_client" without one. Orders are
-- decided in the order of the arrays: one that does not fit changes nothing, and a smaller one after it may still fit. A caller that lost the
-- answer repeats the call: what it created is answered as created, by the external id. An order over the limit of its client is answered as
-- "repeated" where an equal one after it is accepted at another rate.
--
-- client_limit is the BTC that each client may have in the book; null for no limit.
CREATE FUNCTION accept_orders(
    external_ids uuid[],
    client_ids bigint[],
    currencies text[],
    currency_amounts numeric[],
    idempotence_keys uuid[],
    btc_rates numeric[],
    btc_amounts numeric[],
    traceparents text[],
    tracestates text[],
    client_limit numeric
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
        btc_amount      numeric,
        void_reason     text
    )
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = public, pg_temp AS
$$
#variable_conflict use_column
DECLARE
    cap CONSTANT numeric := 100;
    orders CONSTANT bigint := cardinality(external_ids);
    any_new boolean;
    room numeric;
    -- The places of new orders for which their client has no room, whatever happens to the others.
    over_limit bigint[] := '{}';
    all_clients_fit boolean := true;
    all_fit boolean;
    any_fits boolean;
BEGIN
    -- Without the lock: an order that another writer commits meanwhile is found again below, under the lock. Written as a subquery with a
    -- limit, because NOT EXISTS could become a join, and its plan, made while the table was empty, would read the whole table.
    SELECT EXISTS (
        SELECT
          FROM unnest(client_ids, currencies, currency_amounts, idempotence_keys)
               AS given (client_id, currency, currency_amount, idempotence_key)
         WHERE (SELECT placed.id
                  FROM buy_order AS placed
                 WHERE placed.client_id = given.client_id
                   AND placed.currency_id = (SELECT currency.id FROM currency WHERE currency.iso3 = given.currency)
                   AND placed.currency_amount = given.currency_amount::numeric(12, 2)
                   AND placed.idempotence_key = given.idempotence_key
                 LIMIT 1) IS NULL)
      INTO any_new;

    IF any_new THEN
        -- The lock that puts writers in a row. Each statement after it sees what the writers before have committed.
        SELECT cap - btc_amount INTO STRICT room FROM buy_order_running_total FOR UPDATE;
        IF client_limit IS NOT NULL THEN
            PERFORM count_orders_of_clients(NULL);
            -- Repeats take no room. Counted, they would let a client have every batch decided one by one.
            WITH new AS (
                SELECT given.number, given.client_id, given.btc_amount,
                       client_limit - coalesce((SELECT total.btc_amount FROM client_running_total AS total
                                                 WHERE total.client_id = given.client_id), 0) AS left_over
                  FROM unnest(client_ids, currencies, currency_amounts, idempotence_keys, btc_amounts) WITH ORDINALITY
                       AS given (client_id, currency, currency_amount, idempotence_key, btc_amount, number)
                 WHERE (SELECT placed.id
                          FROM buy_order AS placed
                         WHERE placed.client_id = given.client_id
                           AND placed.currency_id = (SELECT currency.id FROM currency WHERE currency.iso3 = given.currency)
                           AND placed.currency_amount = given.currency_amount::numeric(12, 2)
                           AND placed.idempotence_key = given.idempotence_key
                         LIMIT 1) IS NULL
            )
            SELECT coalesce(array_agg(number) FILTER (WHERE btc_amount > left_over), '{}'),
                   NOT EXISTS (SELECT FROM new WHERE btc_amount <= left_over GROUP BY client_id, left_over HAVING sum(btc_amount) > left_over)
              INTO over_limit, all_clients_fit
              FROM new;
        END IF;
        SELECT sum(given.btc_amount) <= room AND all_clients_fit, min(given.btc_amount) <= room
          INTO all_fit, any_fits
          FROM unnest(btc_amounts) WITH ORDINALITY AS given (btc_amount, number)
         WHERE given.number <> ALL (over_limit);

        IF orders > 1 AND any_fits AND NOT all_fit THEN
            -- Each by itself, because what fits depends on those before it.
            RETURN QUERY
            SELECT number - 1, one.verdict, one.id, one.external_id, one.created_at, one.currency_amount, one.btc_rate, one.btc_amount,
                   one.void_reason
              FROM generate_series(1, orders) AS number
             CROSS JOIN LATERAL accept_orders(
                   external_ids[number:number], client_ids[number:number], currencies[number:number], currency_amounts[number:number],
                   idempotence_keys[number:number], btc_rates[number:number], btc_amounts[number:number], traceparents[number:number],
                   tracestates[number:number], client_limit) AS one;
            RETURN;
        END IF;

        -- Ids and times are drawn after sorting. A full join is the one that PostgreSQL never makes by comparing each row with every other;
        -- with "IS NOT NULL" it would be none any more.
        WITH draft AS MATERIALIZED (
            SELECT nextval('buy_order_id_seq') AS id, clock_timestamp() AS created_at, sorted.*
              FROM (SELECT given.*, currency.id AS currency_id
                      FROM unnest(external_ids, client_ids, currencies, currency_amounts, idempotence_keys, btc_rates, btc_amounts, traceparents,
                                  tracestates) WITH ORDINALITY
                           AS given (external_id, client_id, currency, currency_amount, idempotence_key, btc_rate, btc_amount, traceparent,
                                     tracestate, number)
                      JOIN currency ON currency.iso3 = given.currency
                     WHERE all_fit
                       AND given.number <> ALL (over_limit)
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
    END IF;

    RETURN QUERY
    SELECT asked.number - 1,
           CASE
               WHEN found.external_id = asked.external_id THEN 'created'
               WHEN void.reason IS NOT NULL THEN 'voided'
               WHEN found.id IS NOT NULL THEN 'repeated'
               WHEN asked.currency_id IS NULL THEN 'no_currency'
               WHEN (SELECT client.id FROM client WHERE client.id = asked.client_id) IS NULL THEN 'no_client'
               WHEN asked.number = ANY (over_limit) THEN 'over_client_limit'
               ELSE 'over_cap'
           END,
           found.id, found.external_id, found.created_at, found.currency_amount, found.btc_rate, found.btc_amount, void.reason
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
            LIMIT 1) AS found ON true
      -- What the caller created is answered as created, also if it is voided by now: the call may be a repeated one.
      LEFT JOIN LATERAL (
           SELECT CASE
               WHEN found.external_id <> asked.external_id
               THEN (SELECT buy_order_void.reason FROM buy_order_void WHERE buy_order_void.buy_order_id = found.id)
           END AS reason) AS void ON true;
END
$$;
REVOKE ALL ON FUNCTION accept_orders(uuid[], bigint[], text[], numeric[], uuid[], numeric[], numeric[], text[], text[], numeric) FROM PUBLIC;

COMMENT ON FUNCTION accept_orders(uuid[], bigint[], text[], numeric[], uuid[], numeric[], numeric[], text[], text[], numeric) IS
    'The only way an order comes into the book: answers repeats, or else locks the running total, finds repeats, keeps to the cap and the limit of each client, writes orders, messages and total, and answers a verdict for each';


CREATE OR REPLACE FUNCTION accept_orders(
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
    LANGUAGE sql
    SECURITY DEFINER
    SET search_path = public, pg_temp AS
$$
-- Releases that call this do not know voids: they answer a repeat with its order, as before.
SELECT one.index, CASE one.verdict WHEN 'voided' THEN 'repeated' ELSE one.verdict END, one.id, one.external_id, one.created_at,
       one.currency_amount, one.btc_rate, one.btc_amount
  FROM accept_orders(external_ids, client_ids, currencies, currency_amounts, idempotence_keys, btc_rates, btc_amounts, traceparents,
                     tracestates, NULL) AS one
$$;

COMMENT ON FUNCTION accept_orders(uuid[], bigint[], text[], numeric[], uuid[], numeric[], numeric[], text[], text[]) IS
    'accept_orders as it was before version 6, for releases that still call it';
