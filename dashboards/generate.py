"""Writes the dashboards as JSON: python generate.py FOLDER. scripts/dashboards.sh calls it."""

import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

import orders
import postgresql
import rabbitmq
import services
import way_of_an_order

ALL: dict[str, Dashboard] = {
    "orders": orders.made(),
    "way_of_an_order": way_of_an_order.made(),
    "services": services.made(),
    "postgresql": postgresql.made(),
    "rabbitmq": rabbitmq.made(),
}


def main() -> None:
    folder = Path(sys.argv[1])
    for name, dashboard in ALL.items():
        text = JSONEncoder(sort_keys=True, indent=2).encode(dashboard)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
