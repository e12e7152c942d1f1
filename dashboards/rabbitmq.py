"""RabbitMQ, by its plugin rabbitmq_prometheus."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from panels import Panel, Query, Row, Unit, dashboard, of, rate

_NODE = '{job="rabbitmq"}'
_QUEUES = '{job="rabbitmq_queues"}'


def _sum(metric: str) -> str:
    return f"sum by (instance) ({metric}{_NODE})"


def _rate(metric: str) -> str:
    return f"sum by (instance) ({rate(metric + _NODE)})"


_MESSAGES = Row(
    "Messages",
    (
        Panel(
            "Messages in queues",
            Unit.COUNT,
            "Messages that wait or are being dealt with, by queue.",
            (Query(f"sum by (queue) (rabbitmq_detailed_queue_messages{_QUEUES})", "{{queue}}"),),
        ),
        Panel(
            "Published",
            Unit.EVENTS_PER_SECOND,
            "Messages that came, and those that the broker confirmed.",
            (
                Query(_rate("rabbitmq_global_messages_received_total"), "received {{instance}}"),
                Query(_rate("rabbitmq_global_messages_confirmed_total"), "confirmed {{instance}}"),
            ),
        ),
        Panel(
            "Delivered",
            Unit.EVENTS_PER_SECOND,
            "Messages that were delivered, acknowledged, and delivered again because they were not acknowledged.",
            (
                Query(_rate("rabbitmq_global_messages_delivered_total"), "delivered {{instance}}"),
                Query(_rate("rabbitmq_global_messages_acknowledged_total"), "acknowledged {{instance}}"),
                Query(_rate("rabbitmq_global_messages_redelivered_total"), "delivered again {{instance}}"),
            ),
        ),
        Panel(
            "Returned to the publisher",
            Unit.EVENTS_PER_SECOND,
            "Messages that no queue took. They stay in the outbox. Alert: PublishesReturned.",
            (Query(_rate("rabbitmq_global_messages_unroutable_returned_total"), "{{instance}}"),),
        ),
        Panel(
            "Dead-lettered by the broker",
            Unit.EVENTS_PER_SECOND,
            "Messages that the broker itself moved to a dead-letter queue after too many deliveries.",
            (Query(_rate("rabbitmq_global_messages_dead_lettered_delivery_limit_total"), "{{instance}}"),),
        ),
    ),
)

_NODES = Row(
    "Node",
    (
        Panel(
            "Connections and channels",
            Unit.COUNT,
            "Open connections, channels and consumers.",
            (
                Query(_sum("rabbitmq_connections"), "connections {{instance}}"),
                Query(_sum("rabbitmq_channels"), "channels {{instance}}"),
                Query(_sum("rabbitmq_consumers"), "consumers {{instance}}"),
            ),
        ),
        Panel(
            "Memory of what is allowed",
            Unit.RATIO,
            "At 1, the broker blocks all publishers. Alert: BrokerBlocked.",
            (
                Query(
                    f"{_sum('rabbitmq_process_resident_memory_bytes')} / {_sum('rabbitmq_resident_memory_limit_bytes')}",
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            "Free disk",
            Unit.BYTES,
            "Below the limit, the broker blocks all publishers. Alert: BrokerBlocked.",
            (
                Query(_sum("rabbitmq_disk_space_available_bytes"), "free {{instance}}"),
                Query(_sum("rabbitmq_disk_space_available_limit_bytes"), "limit {{instance}}"),
            ),
        ),
        Panel(
            "Alarms",
            Unit.ON_OFF,
            "While an alarm is on, the broker accepts no messages.",
            (
                Query(_sum("rabbitmq_alarms_memory_used_watermark"), "memory {{instance}}"),
                Query(_sum("rabbitmq_alarms_free_disk_space_watermark"), "disk {{instance}}"),
            ),
        ),
        Panel(
            "Publishers that are blocked",
            Unit.YES_NO,
            "Whether the broker has told a service to wait. Alert: BrokerBlocked.",
            (Query(f"max by (service, instance) ({of('broker_blocked')})", "{{service}} {{instance}}"),),
        ),
        Panel(
            "New connections",
            Unit.EVENTS_PER_SECOND,
            "Connections that were opened. A steady rate means that a client connects again and again.",
            (Query(_rate("rabbitmq_connections_opened_total"), "{{instance}}"),),
        ),
    ),
)


def made() -> Dashboard:
    return dashboard("pydist-rabbitmq", "RabbitMQ", "The broker: messages, connections, memory and disk.", (_MESSAGES, _NODES))
