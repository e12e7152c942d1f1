#!/bin/sh
# Prints the configuration of Prometheus, which reads no variables of the environment itself. docker-compose.observability.yml calls it.
# POSIX sh: the image of Prometheus has no bash.
set -eu

# Each replica of a service is a target: DNS has an address for each. The job and the label `service` are what docs/alerts.yml selects by.
service() { # NAME HOST PORT
    # YAML takes a number that begins with 0 for an octal one.
    port=$(echo "${OPS_PORT:-$3}" | sed 's/^+*0*//')
    cat <<YAML
  - job_name: $1
    dns_sd_configs: [{ names: ["$2"], type: A, port: $port, refresh_interval: 5s }]
    relabel_configs:
      - { target_label: job, replacement: pydist }
      - { target_label: service, replacement: $1 }
YAML
    # With a certificate, the services speak HTTPS only. Its names are those of the services, and not the addresses that DNS answers.
    [ -z "${SERVICE_TLS_CERT_FILE:-}" ] || cat <<YAML
    scheme: https
    tls_config: { server_name: "$2"${EXTRA_CA_FILE:+, ca_file: "$EXTRA_CA_FILE"} }
YAML
}

cat <<YAML
global:
  scrape_interval: 5s
  evaluation_interval: 5s
  external_labels: { runbooks: "${RUNBOOKS_URL:-docs/operations.md}" }
rule_files: [/etc/prometheus/alerts.yml]
alerting:
  alertmanagers: [{ static_configs: [{ targets: ["alertmanager:9093"] }] }]
  # Only for the annotations of the rules.
  alert_relabel_configs: [{ action: labeldrop, regex: runbooks }]
scrape_configs:
YAML
service migration "$MIGRATION_HOST" "$MIGRATION_PORT"
service btc_price "$BTC_PRICE_HOST" "$BTC_PRICE_PORT"
service create_buy_order "$CREATE_BUY_ORDER_HOST" "$CREATE_BUY_ORDER_PORT"
service read_model_sync "$READ_MODEL_SYNC_HOST" "$READ_MODEL_SYNC_PORT"
service fetch_buy_orders "$FETCH_BUY_ORDERS_HOST" "$FETCH_BUY_ORDERS_PORT"
cat <<YAML
  - job_name: postgresql
    static_configs:
      - { targets: ["write_model_exporter:9187"], labels: { model: write_model } }
      - { targets: ["read_model_exporter:9187"], labels: { model: read_model } }
  - job_name: rabbitmq
    static_configs: [{ targets: ["$Q_HOST:15692"] }]
  # The same by queue. All metrics by queue would be thousands of series; these are what the dashboards show.
  - job_name: rabbitmq_queues
    metrics_path: /metrics/detailed
    params: { family: [queue_coarse_metrics, queue_consumer_count] }
    static_configs: [{ targets: ["$Q_HOST:15692"] }]
YAML
