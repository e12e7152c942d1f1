"""The processes of the services: what each replica uses, and whether it is well."""

from grafana_foundation_sdk.builders.dashboard import QueryVariable
from grafana_foundation_sdk.models.dashboard import Dashboard, VariableOption, VariableRefresh

from panels import PROMETHEUS, Panel, Query, Row, Unit, dashboard, of, quantiles, rate

_CHOSEN = 'service=~"$service"'
_REPLICA = "{{service}} {{instance}}"


def _service() -> QueryVariable:
    return (
        QueryVariable("service")
        .label("Service")
        .datasource(PROMETHEUS)
        .query(f"label_values({of('service_ready')}, service)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(VariableOption(text="All", value="$__all", selected=True))
    )


def _by_replica(expression: str) -> tuple[Query, ...]:
    return (Query(f"sum by (service, instance) ({expression})", _REPLICA),)


_STATE = Row(
    "State",
    (
        Panel(
            "Up",
            Unit.YES_NO,
            "Whether Prometheus gets the metrics of each replica. Alert: ServiceDown.",
            _by_replica(of("up", _CHOSEN)),
        ),
        Panel(
            "Ready",
            Unit.YES_NO,
            "Whether each replica has what it cannot work without; its /readyz says what is missing. Alert: ServiceNotReady.",
            _by_replica(of("service_ready", _CHOSEN)),
        ),
        Panel(
            "Time since the start",
            Unit.SECONDS,
            "It falls to 0 when a replica is started again.",
            _by_replica(f"time() - {of('process_start_time_seconds', _CHOSEN)}"),
        ),
    ),
)

_PROCESS = Row(
    "Process",
    (
        Panel(
            "Memory",
            Unit.BYTES,
            "Resident memory of each replica. A container has 128 MB.",
            _by_replica(of("process_resident_memory_bytes", _CHOSEN)),
        ),
        Panel(
            "CPU",
            Unit.CORES,
            "Cores that each replica uses.",
            _by_replica(rate(of("process_cpu_seconds_total", _CHOSEN))),
        ),
        Panel(
            "Open files",
            Unit.RATIO,
            "Open files and sockets, as a part of how many a process may have.",
            _by_replica(f"{of('process_open_fds', _CHOSEN)} / {of('process_max_fds', _CHOSEN)}"),
        ),
        Panel(
            "Tasks",
            Unit.COUNT,
            "Tasks of the async runtime that are alive. A number that only grows is a leak.",
            _by_replica(of("tokio_alive_tasks", _CHOSEN)),
        ),
        Panel(
            "Dropped events of the log",
            Unit.EVENTS_PER_SECOND,
            "Events that were dropped because an outlet of the log was away or slow. Alert: LogEventsDropped.",
            (
                Query(
                    f"sum by (service, instance, outlet) ({rate(of('log_events_dropped_total', _CHOSEN))})",
                    _REPLICA + " {{outlet}}",
                ),
            ),
        ),
        Panel(
            "Versions",
            Unit.COUNT,
            "Replicas of each version. During an upgrade there are two.",
            (Query(f"count by (service, version) ({of('pydist_build_info', _CHOSEN)})", "{{service}} {{version}}"),),
            newest_only=True,
        ),
    ),
)

_HTTP = Row(
    "HTTP",
    (
        Panel(
            "Requests",
            Unit.REQUESTS_PER_SECOND,
            "Answers of each service, by status. Alert: AnswersFail.",
            (Query(f"sum by (service, status) ({rate(of('http_requests_total', _CHOSEN))})", "{{service}} {{status}}"),),
        ),
        Panel(
            "Duration",
            Unit.SECONDS,
            "From a request to its answer, by replica.",
            quantiles("http_request_duration_seconds", _CHOSEN),
        ),
        Panel(
            "Requests without an answer yet",
            Unit.COUNT,
            "Requests in flight, by replica. The scrape itself is one.",
            _by_replica(of("http_requests_in_flight", _CHOSEN)),
        ),
        Panel(
            "Connections of clients",
            Unit.COUNT,
            "Open connections, by replica.",
            _by_replica(of("http_connections_open", _CHOSEN)),
        ),
        Panel(
            "Connections to databases",
            Unit.COUNT,
            "Connections of each pool: in use, idle, and how many it may have.",
            (
                Query(
                    f"sum by (service, instance, state) ({of('database_pool_connections', _CHOSEN)})",
                    _REPLICA + " {{state}}",
                ),
            ),
        ),
        Panel(
            "Waiting for a connection",
            Unit.SECONDS,
            "How long statements wait for a connection of the pool, by replica.",
            quantiles("database_pool_acquire_duration_seconds", _CHOSEN),
        ),
    ),
)


def made() -> Dashboard:
    return dashboard(
        "pydist-services",
        "Services",
        "The processes of the services: state, memory, CPU, files, connections, HTTP.",
        (_STATE, _PROCESS, _HTTP),
        (_service(),),
    )
