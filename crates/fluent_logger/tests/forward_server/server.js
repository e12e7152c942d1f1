// A Fluentd forward server that prints a JSON line with its port, then one for each event it received.
// Usage: node server.js <port, 0 for any> <pause before each acknowledgement in ms>. Ends when its standard input ends, so that it never outlives a test.
"use strict";

const { FluentServer } = require("@fluent-org/logger");

const [port, ackPauseMs] = process.argv.slice(2).map(Number);

class PrintingServer extends FluentServer {
  handleConnection(socket) {
    // The base class acknowledges before it hands the events over. Printed first, an acknowledged event
    // cannot be lost by a kill in between.
    const write = socket.write.bind(socket);
    socket.write = (...args) => setTimeout(() => socket.writable && write(...args), ackPauseMs);
    socket.on("error", () => socket.destroy());
    return super.handleConnection(socket);
  }

  onEntry(tag, time, record) {
    console.log(JSON.stringify({ tag, seconds: time.epoch, nanos: time.nano, record }));
  }
}

const server = new PrintingServer({ listenOptions: { host: "127.0.0.1", port } });
server.server.on("error", (error) => {
  console.error(`cannot listen on port ${port}: ${error.message}`);
  process.exit(1);
});
server.listen().then(() => console.log(JSON.stringify({ listening: server.port })));
process.stdin.on("end", () => process.exit(0)).resume();
