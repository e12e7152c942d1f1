-- accept_orders answers repeats without the lock, where all that it is given was accepted before: nothing is written then, and nobody is
-- waited for. It is otherwise as in version 3.
--
-- Each array has one element an order. Answers one row an order: "created" with the order, "repeated" with the order that an equal request
-- made before, "over_cap", "no_currency" or "no_client" without one. Orders are decided in the order of the arrays: one that does not fit
-- changes nothing, and a smaller one after it may still fit. A caller that lost the answer repeats the call: what it created is answered as
-- created, by the external id.
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
    LANGUAGE plpgsql AS
$$
#variable_conflict use_column
DECLARE
    cap CONSTANT numeric := 100;
    orders CONSTANT bigint := cardinality(external_ids);
    any_new boolean;
    room numeric;
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
    END IF;

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
    'The only way an order comes into the book: answers repeats, or else locks the running total, finds repeats, keeps to the cap, writes orders, messages and total, and answers a verdict for each';
