-- Nullable and without a default: images of before the column go on writing without it.
ALTER TABLE outbox
    ADD COLUMN tracestate text;

COMMENT ON COLUMN outbox.tracestate IS 'W3C trace state that came with traceparent: what other tracers keep of the trace, if anything';
