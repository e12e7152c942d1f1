"""PostgreSQL of both models, by postgres_exporter."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from panels import Panel, Query, Row, Unit, dashboard, rate

_SERVER = '{job="postgresql"}'
_OURS = '{job="postgresql",datname!~"template.*|postgres"}'


def _rate(metric: str) -> str:
    return f"sum by (model) ({rate(metric + _OURS)})"


_SESSIONS = Row(
    "Sessions",
    (
        Panel(
            "Up",
            Unit.YES_NO,
            "Whether the exporter reaches the server.",
            (Query(f"min by (model) (pg_up{_SERVER})", "{{model}}"),),
        ),
        Panel(
            "Sessions",
            Unit.COUNT,
            "Sessions by state. `idle in transaction` should be rare and short: it keeps locks.",
            (Query(f"sum by (model, state) (pg_stat_activity_count{_OURS}) > 0", "{{model}} {{state}}"),),
            stacked=True,
        ),
        Panel(
            "Sessions of those allowed",
            Unit.RATIO,
            "All sessions, as a part of max_connections. At 1, the server refuses more.",
            (
                Query(
                    f"sum by (model) (pg_stat_activity_count{_SERVER}) / max by (model) (pg_settings_max_connections{_SERVER})",
                    "{{model}}",
                ),
            ),
        ),
        Panel(
            "Longest transaction",
            Unit.SECONDS,
            "How long the oldest open transaction has been open.",
            (Query(f"max by (model) (pg_stat_activity_max_tx_duration{_OURS})", "{{model}}"),),
        ),
        Panel(
            "Locks",
            Unit.COUNT,
            "Locks that are held or waited for, by mode.",
            (Query(f"sum by (model, mode) (pg_locks_count{_OURS})", "{{model}} {{mode}}"),),
        ),
        Panel(
            "Deadlocks",
            Unit.EVENTS_PER_SECOND,
            "Transactions that the server ended because they waited for each other.",
            (Query(_rate("pg_stat_database_deadlocks"), "{{model}}"),),
        ),
    ),
)

_WORK = Row(
    "Work",
    (
        Panel(
            "Transactions",
            Unit.EVENTS_PER_SECOND,
            "Transactions that were committed and rolled back.",
            (
                Query(_rate("pg_stat_database_xact_commit"), "{{model}} committed"),
                Query(_rate("pg_stat_database_xact_rollback"), "{{model}} rolled back"),
            ),
        ),
        Panel(
            "Rows written",
            Unit.EVENTS_PER_SECOND,
            "Rows that were inserted, updated and deleted.",
            (
                Query(_rate("pg_stat_database_tup_inserted"), "{{model}} inserted"),
                Query(_rate("pg_stat_database_tup_updated"), "{{model}} updated"),
                Query(_rate("pg_stat_database_tup_deleted"), "{{model}} deleted"),
            ),
        ),
        Panel(
            "Read from memory",
            Unit.RATIO,
            "The part of all blocks that was in PostgreSQL's own memory. The others may still come from the system's.",
            (
                Query(
                    f"{_rate('pg_stat_database_blks_hit')} / ({_rate('pg_stat_database_blks_hit')} + {_rate('pg_stat_database_blks_read')})",
                    "{{model}}",
                ),
            ),
        ),
        Panel(
            "Size",
            Unit.BYTES,
            "The size of the database on disk.",
            (Query(f"sum by (model) (pg_database_size_bytes{_OURS})", "{{model}}"),),
        ),
        Panel(
            "Temporary files",
            Unit.BYTES,
            "Bytes a second that sorts and joins write to disk because work_mem is too small for them.",
            (Query(_rate("pg_stat_database_temp_bytes"), "{{model}}"),),
        ),
    ),
)


def made() -> Dashboard:
    return dashboard(
        "pydist-postgresql",
        "PostgreSQL",
        "The servers of the write model and the read model.",
        (_SESSIONS, _WORK),
    )
