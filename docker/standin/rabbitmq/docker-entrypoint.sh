#!/bin/bash
# Becomes RabbitMQ, as the user rabbitmq.
set -euo pipefail

if [ "$1" = rabbitmq-server ] && [ "$(id -u)" -eq 0 ]; then
    chown -R rabbitmq:rabbitmq /var/lib/rabbitmq
    exec setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups "$0" "$@"
fi
exec "$@"
