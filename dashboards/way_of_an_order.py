"""What is between a client's order and its page: how busy each part is, what waits before it, and what fails."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from panels import Panel, Query, Row, Unit, dashboard, mean, of, quantiles, rate

_QUEUES = '{job="rabbitmq_queues"}'

_WRITER = Row(
    "Write model",
    (
        Panel(
            "Duration of a transaction",
            Unit.SECONDS,
            "One call of accept_orders, which writes the orders that arrived together. Alert: OrderWritesSlow.",
            quantiles("order_write_duration_seconds"),
        ),
        Panel(
            "Orders in a transaction",
            Unit.COUNT,
            "The mean number of orders that one transaction writes. It grows with the load; 128 of a client is the limit.",
            (Query(mean("order_batch_orders"), "{{instance}}"),),
        ),
        Panel(
            "Orders that wait for the writer",
            Unit.COUNT,
            "Orders that are priced and wait for the next transaction, by replica.",
            (Query(f"max by (instance) ({of('order_drafts_waiting')})", "{{instance}}"),),
        ),
    ),
)

_OUTBOX = Row(
    "Outbox",
    (
        Panel(
            "Events in the outbox",
            Unit.COUNT,
            "Events that are not in the queue yet. Each replica reports the whole outbox. Alert: OutboxUnknown.",
            (Query(f"max by (instance) ({of('outbox_events')})", "{{instance}}"),),
        ),
        Panel(
            "Age of the oldest event",
            Unit.SECONDS,
            "How long the oldest event has waited in the outbox. Alert: OutboxOld.",
            (Query(f"max by (instance) ({of('outbox_oldest_age_seconds')})", "{{instance}}"),),
        ),
        Panel(
            "Publishes",
            Unit.EVENTS_PER_SECOND,
            "Messages that were handed to the broker, by outcome. Returned: no queue took it. Failed: it is published again. Alert: PublishesReturned.",
            (
                Query(
                    f"sum by (outcome, instance) ({rate(of('broker_publishes_total', service='create_buy_order'))})",
                    "{{outcome}} {{instance}}",
                ),
            ),
        ),
    ),
)

_QUEUE = Row(
    "Queue",
    (
        Panel(
            "Messages in queues",
            Unit.COUNT,
            "Messages that wait, and messages that were delivered and not acknowledged yet. Those of a dead-letter queue stay until somebody acts.",
            (
                Query(f"sum by (queue) (rabbitmq_detailed_queue_messages_ready{_QUEUES})", "{{queue}} ready"),
                Query(f"sum by (queue) (rabbitmq_detailed_queue_messages_unacked{_QUEUES})", "{{queue}} unacknowledged"),
            ),
        ),
        Panel(
            "Consumers",
            Unit.COUNT,
            "Consumers of each queue: one for each replica of read_model_sync.",
            (Query(f"sum by (queue) (rabbitmq_detailed_queue_consumers{_QUEUES})", "{{queue}}"),),
        ),
        Panel(
            "Connected to the broker",
            Unit.YES_NO,
            "Whether each connection of a service is open. Alert: BrokerDisconnected.",
            (Query(f"min by (service, instance) ({of('broker_connected')})", "{{service}} {{instance}}"),),
        ),
    ),
)

_PROJECTION = Row(
    "Projection",
    (
        Panel(
            "Deliveries",
            Unit.EVENTS_PER_SECOND,
            "Messages that read_model_sync has dealt with, by outcome. Postponed: the read model is away. Alerts: ProjectionPostponed, DeadLetters.",
            (
                Query(
                    f"sum by (outcome, instance) ({rate(of('projection_deliveries_total'))})",
                    "{{outcome}} {{instance}}",
                ),
            ),
        ),
        Panel(
            "Lag",
            Unit.SECONDS,
            "From the time of an order to its row in the read model. Alert: ProjectionLag.",
            quantiles("projection_lag_seconds"),
        ),
        Panel(
            "Deliveries in a transaction",
            Unit.COUNT,
            "The mean number of messages that one transaction projects.",
            (Query(mean("projection_batch_deliveries"), "{{instance}}"),),
        ),
        Panel(
            "Dead letters that are held",
            Unit.COUNT,
            "Dead letters that the broker does not accept. They are held until it does. Alert: DeadLettersRefused.",
            (Query(f"max by (instance) ({of('dead_letters_held')})", "{{instance}}"),),
        ),
        Panel(
            "Connections in use",
            Unit.RATIO,
            "The part of a pool's connections to its database that is in use. At 1, requests wait for a connection.",
            (
                Query(
                    f"sum by (service, instance) ({of('database_pool_connections', state='in_use')})"
                    f" / sum by (service, instance) ({of('database_pool_connections', state='max')})",
                    "{{service}} {{instance}}",
                ),
            ),
        ),
        Panel(
            "No connection in time",
            Unit.EVENTS_PER_SECOND,
            "Statements that got no connection of the pool in time. Alert: PoolExhausted.",
            (
                Query(
                    f"sum by (service, instance) ({rate(of('database_pool_acquire_timeouts_total'))})",
                    "{{service}} {{instance}}",
                ),
            ),
        ),
    ),
)


def made() -> Dashboard:
    return dashboard(
        "pydist-way",
        "The way of an order",
        "Write model, outbox, queue, projection: how busy each is, what waits before it, and what fails.",
        (_WRITER, _OUTBOX, _QUEUE, _PROJECTION),
    )
