-- Orders can be voided: an operator takes an order out of the book. Pages no longer show it.
-- Adding a column that may be null takes no time, however many orders there are.

CREATE TABLE buy_order_void_read_model
(
    id          bigint      NOT NULL,
    external_id uuid        NOT NULL,
    reason      text        NOT NULL,
    voided_at   timestamptz NOT NULL,
    CONSTRAINT buy_order_void_read_model_pkey PRIMARY KEY (id),
    CONSTRAINT buy_order_void_read_model_reason_check CHECK (char_length(reason) <= 500 AND btrim(reason) <> ''
                                                             AND reason !~ '[\u0001-\u001f\u007f-\u009f]')
);

COMMENT ON TABLE buy_order_void_read_model IS
    'One row per voided order of the write model. Messages come in any order, so a void may be here before its order is in buy_order_read_model';
COMMENT ON COLUMN buy_order_void_read_model.id IS 'buy_order.id of the write model: which order is voided';
COMMENT ON COLUMN buy_order_void_read_model.external_id IS 'The id of that order that clients see';
COMMENT ON COLUMN buy_order_void_read_model.reason IS 'Why, in the operator''s words';
COMMENT ON COLUMN buy_order_void_read_model.voided_at IS 'When the void was written to the write model';

ALTER TABLE buy_order_read_model
    ADD COLUMN voided_at timestamptz;

COMMENT ON COLUMN buy_order_read_model.voided_at IS
    'When the order was voided, from buy_order_void_read_model; null while it is not. Pages show orders where it is null';
