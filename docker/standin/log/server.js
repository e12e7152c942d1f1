// Prints every event that arrives over Fluentd's forward protocol as one line of JSON, as docker/fluentd/fluent.conf makes Fluentd do.
"use strict";

const { FluentServer } = require("@fluent-org/logger");

const port = Number(process.env.LOGGING_PORT ?? 24224);
const server = new FluentServer({ listenOptions: { host: "0.0.0.0", port } });

// Times come as the protocol's EventTime, or as whole seconds.
function iso8601(time) {
  const [seconds, nanos] =
    typeof time === "object" && time !== null && "epoch" in time ? [time.epoch, time.nano] : [Number(time), 0];
  const whole = new Date(seconds * 1000).toISOString().slice(0, 19);
  return `${whole}.${String(Math.floor(nanos / 1000)).padStart(6, "0")}Z`;
}

server.on("entry", (tag, time, record) => {
  process.stdout.write(`${JSON.stringify({ ...record, tag, time: iso8601(time) })}\n`);
});

// As process 1 of a container, node gets no default action for signals.
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => server.close().then(() => process.exit(0)));
}

server.listen().then(() => process.stderr.write(`listening for forward protocol on ${port}\n`));
