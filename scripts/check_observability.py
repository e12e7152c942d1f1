#!/usr/bin/env python3
"""Checks the dashboards and the alert rules against a cluster in which orders flow, by a real Prometheus and a real Alertmanager:

    MONITOR_DB_USER=... MONITOR_DB_PWD=... scripts/check_observability.py --target=create_buy_order=127.0.0.1:8777...
        --database=write_model=127.0.0.1:5433/write_model... --broker=127.0.0.1:15692

1. Every expression of every panel has data, and where its series are named by replica, of two replicas. For rules, whose comparisons are
   empty while all is well, every metric with its labels has data, and every expression without its comparison.
2. It says "every expression has data", and reads a line: the broker is to be stopped. Alertmanager then has the alert BrokerDisconnected, for
   each connection. It says "the alert fires".
3. It reads a line: the broker runs again. When the alert is gone, it says "the alert is resolved".

It uses the configuration of Prometheus (docker/prometheus/configure.sh) with these addresses in the place of DNS names, and the packages of
Debian: prometheus, prometheus-alertmanager, prometheus-postgres-exporter. Their processes have free ports and a temporary folder, and end
with this one, which ends when its standard input is closed. Needs Python 3.10 or later. tests/observability.rs of the crate cluster calls it.
"""

import argparse
import ctypes
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ("migration", "btc_price", "create_buy_order", "read_model_sync", "fetch_buy_orders")
ALERT = "BrokerDisconnected"
# The services with a connection to the broker.
CONNECTED = {"migration", "create_buy_order", "read_model_sync"}
RUNBOOKS = "https://runbooks.invalid/operations.md"
# Series that exist only once something went wrong: here it is enough that the metric has the label.
MADE_BY_FAILURES = {"status"}
# Generous: the machine may be busy with other tests.
LIMIT_S = 120.0

# Requests to this machine, past any proxy.
_http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Failure(Exception):
    """What is wrong, for people."""


# --- processes --------------------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def end_with_parent() -> None:
    """In a child: the kernel ends it when this process ends, also when it is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def start(running: ExitStack, folder: Path, name: str, *arguments: str, **environment: str) -> None:
    """Starts a server; its output goes to a file in `folder`."""
    log = running.enter_context((folder / f"{name}.log").open("wb"))
    try:
        process = subprocess.Popen(
            [name, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", **environment},
            preexec_fn=end_with_parent,
        )
    except FileNotFoundError:
        raise Failure(f"{name} is missing: apt-get install prometheus prometheus-alertmanager prometheus-postgres-exporter") from None

    def end() -> None:
        process.kill()
        process.wait()

    running.callback(end)


def wait_until(what: str, condition: Callable[[], list[str]]) -> None:
    """Waits until nothing is wrong. What still is, is in the failure."""
    deadline = time.monotonic() + LIMIT_S
    while wrong := condition():
        if time.monotonic() > deadline:
            raise Failure(f"not within {LIMIT_S:.0f} s: {what}\n  " + "\n  ".join(wrong))
        time.sleep(0.5)


def get(url: str) -> Any:
    try:
        with _http.open(url, timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise Failure(f"{url}: {error.read().decode(errors='replace')}") from None


def answers(url: str) -> list[str]:
    try:
        with _http.open(url, timeout=2):
            return []
    except OSError as error:
        return [f"{url}: {error}"]


# --- what is checked --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expression:
    """An expression that must have data."""

    where: str
    text: str
    by_replica: bool = False


def panels(dashboards: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, dashboard in dashboards.items():
        for panel in dashboard["panels"]:
            if panel["type"] != "row":
                yield f"{name}: {panel['title']}", panel


def expressions_of_variables(dashboards: dict[str, Any]) -> Iterator[Expression]:
    for name, dashboard in dashboards.items():
        for variable in dashboard.get("templating", {}).get("list", []):
            listed = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
            if listed is None:
                raise Failure(f"{name}: the variable {variable['name']} is no list of the values of a label: {variable['query']}")
            yield Expression(f"{name}: ${variable['name']}", f"count by ({listed[2]}) ({listed[1]})")


def expressions_of_dashboards(folder: Path, alerts: set[str]) -> list[Expression]:
    dashboards = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    found = list(expressions_of_variables(dashboards))
    for where, panel in panels(dashboards):
        for key in ("title", "description"):
            if not panel.get(key):
                raise Failure(f"{where} has no {key}")
        for named in re.findall(r"Alerts?: ([\w, ]+)", panel["description"]):
            if unknown := set(named.split(", ")) - alerts:
                raise Failure(f"{where} names alerts that are not in docs/alerts.yml: {unknown}")
        if not panel["fieldConfig"]["defaults"].get("unit"):
            raise Failure(f"{where} has no unit")
        if not panel["targets"]:
            raise Failure(f"{where} shows nothing")
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "30s").replace("$service", ".+")
            found.append(Expression(where, text, "{{instance}}" in target["legendFormat"] and "rabbitmq_" not in text))
    return found


def rules(prometheus: str) -> list[dict[str, Any]]:
    groups = get(f"{prometheus}/api/v1/rules")["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def without_comparison(expression: str) -> list[str]:
    """The parts of a rule that are compared: what the alert is about."""
    parts = re.split(r"\s+(?:and|or|unless)\s+", expression)
    return [re.split(r"\s*(?:==|!=|>=|<=|>|<)\s*[\d.e+-]+\s*$", part)[0] for part in parts]


def selectors(expression: str) -> list[tuple[str, str]]:
    """Metrics and their matchers."""
    return re.findall(r"\b([a-zA-Z_:][\w:]*)\{([^}]*)\}", expression)


def variants(metric: str, matchers: str) -> Iterator[str]:
    """A selector for each alternative: of a|b, the one that is misspelt must not hide behind the other."""
    labels = re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers)
    chosen: list[list[str]] = [[]]
    for label, operator, value in labels:
        if label in MADE_BY_FAILURES:
            choices = [f'{label}!=""']
        elif operator == "=~" and re.fullmatch(r"[\w|]+", value):
            choices = [f'{label}="{one}"' for one in value.split("|")]
        else:
            choices = [f'{label}{operator}"{value}"']
        chosen = [[*start, choice] for start in chosen for choice in choices]
    for one in chosen:
        yield f"{metric}{{{','.join(one)}}}"


def expressions_of_rules(prometheus: str) -> list[Expression]:
    found = []
    for rule in rules(prometheus):
        where = f"alerts.yml: {rule['name']}"
        used = selectors(rule["query"])
        if not used:
            raise Failure(f"{where} has no selector: {rule['query']}")
        for metric, matchers in used:
            if 'job="pydist"' not in matchers:
                raise Failure(f"{where} does not select the job pydist: {metric}{{{matchers}}}")
            found += [Expression(where, variant) for variant in variants(metric, matchers)]
        if "absent(" in rule["query"] or any(label in rule["query"] for label in MADE_BY_FAILURES):
            continue
        found += [Expression(where, part) for part in without_comparison(rule["query"])]
    return found


def missing(prometheus: str, expression: Expression) -> str | None:
    query = urllib.parse.urlencode({"query": expression.text})
    series = get(f"{prometheus}/api/v1/query?{query}")["data"]["result"]
    known = [one for one in series if one["value"][1] != "NaN"]
    replicas = {one["metric"].get("instance") for one in known}
    if not known:
        return f"{expression.where}: {'only NaN' if series else 'no data'}: {expression.text}"
    if expression.by_replica and len(replicas) < 2:
        return f"{expression.where}: data of one replica only, {replicas}: {expression.text}"
    return None


# --- the servers ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cluster:
    """The addresses of what is observed."""

    targets: dict[str, list[str]]
    databases: dict[str, str]
    broker: str


def replace(text: str, old: str, new: str) -> str:
    if old not in text:
        raise Failure(f"docker/prometheus/configure.sh does not print {old}")
    return text.replace(old, new)


def configuration(cluster: Cluster, exporters: dict[str, int], alertmanager: int, alerts: Path) -> str:
    """That of the containers, with other addresses and shorter times."""
    names = {f"{service.upper()}_{part}": value for service in SERVICES for part, value in (("HOST", service), ("PORT", "8080"))}
    environment = {**names, "Q_HOST": "queue", "RUNBOOKS_URL": RUNBOOKS, "PATH": "/usr/bin:/bin"}
    text = subprocess.run(
        ["sh", ROOT / "docker/prometheus/configure.sh"], env=environment, check=True, capture_output=True, text=True
    ).stdout
    for service in SERVICES:
        by_name = f'dns_sd_configs: [{{ names: ["{service}"], type: A, port: 8080, refresh_interval: 5s }}]'
        text = replace(text, by_name, f"static_configs: [{{ targets: {json.dumps(cluster.targets[service])} }}]")
    for model, port in exporters.items():
        text = replace(text, f"{model}_exporter:9187", f"127.0.0.1:{port}")
    text = replace(text, "queue:15692", cluster.broker)
    text = replace(text, "alertmanager:9093", f"127.0.0.1:{alertmanager}")
    text = replace(text, "/etc/prometheus/alerts.yml", str(alerts))
    return replace(text, "_interval: 5s", "_interval: 1s")


def quick_alerts() -> str:
    """The rules, with an alert that does not wait for minutes."""
    text = (ROOT / "docs/alerts.yml").read_text(encoding="utf-8")
    quick, count = re.subn(rf"(- alert: {ALERT}\n(?:.*\n)*?\s+for: )\w+", r"\g<1>2s", text, count=1)
    if count != 1:
        raise Failure(f"docs/alerts.yml has no alert {ALERT} with `for`")
    return quick


@dataclass(frozen=True)
class Servers:
    """The URLs of the servers that observe."""

    prometheus: str
    alertmanager: str


def start_servers(running: ExitStack, folder: Path, cluster: Cluster) -> Servers:
    exporters = {}
    for model, address in cluster.databases.items():
        port = exporters[model] = free_port()
        own = folder / model
        own.mkdir()
        start(
            running,
            own,
            "prometheus-postgres-exporter",
            f"--web.listen-address=127.0.0.1:{port}",
            DATA_SOURCE_URI=f"{address}?sslmode=disable",
            DATA_SOURCE_USER=os.environ["MONITOR_DB_USER"],
            DATA_SOURCE_PASS=os.environ["MONITOR_DB_PWD"],
        )
    alertmanager, prometheus = free_port(), free_port()
    start(
        running,
        folder,
        "prometheus-alertmanager",
        f"--config.file={ROOT}/docker/alertmanager/alertmanager.yml",
        f"--storage.path={folder}/alertmanager",
        f"--web.listen-address=127.0.0.1:{alertmanager}",
        "--cluster.listen-address=",
    )
    alerts, config = folder / "alerts.yml", folder / "prometheus.yml"
    alerts.write_text(quick_alerts(), encoding="utf-8")
    config.write_text(configuration(cluster, exporters, alertmanager, alerts), encoding="utf-8")
    subprocess.run(["promtool", "check", "config", config], check=True, stdout=subprocess.DEVNULL)
    start(
        running,
        folder,
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder}/prometheus",
        f"--web.listen-address=127.0.0.1:{prometheus}",
    )
    servers = Servers(f"http://127.0.0.1:{prometheus}", f"http://127.0.0.1:{alertmanager}")
    wait_until("Prometheus and Alertmanager are ready", lambda: answers(f"{servers.prometheus}/-/ready") + answers(f"{servers.alertmanager}/-/ready"))
    return servers


# --- the steps --------------------------------------------------------------------------------------------------------------------


def check_targets(servers: Servers, cluster: Cluster) -> None:
    """Each replica is found under its service."""
    wanted = {(service, target) for service, targets in cluster.targets.items() for target in targets}

    def absent() -> list[str]:
        targets = get(f"{servers.prometheus}/api/v1/targets")["data"]["activeTargets"]
        wrong = [f"{one['scrapeUrl']}: {one['lastError'] or one['health']}" for one in targets if one["health"] != "up"]
        ours = [one["labels"] for one in targets if one["labels"]["job"] == "pydist"]
        found = {(labels.get("service"), labels["instance"]) for labels in ours}
        return wrong + [f"{service} at {target} is no target" for service, target in wanted - found]

    wait_until("every target is up", absent)


def check_expressions(servers: Servers) -> int:
    alerts = {rule["name"] for rule in rules(servers.prometheus)}
    expressions = expressions_of_dashboards(ROOT / "docker/grafana/dashboards", alerts) + expressions_of_rules(servers.prometheus)
    unproved = expressions

    def without_data() -> list[str]:
        nonlocal unproved
        results = [(expression, missing(servers.prometheus, expression)) for expression in unproved]
        # What had data once is proved.
        unproved = [expression for expression, problem in results if problem]
        return [problem for _, problem in results if problem]

    wait_until("every expression has data", without_data)
    broken = [f"{rule['name']}: {rule['lastError']}" for rule in rules(servers.prometheus) if rule["health"] == "err"]
    if broken:
        raise Failure("rules fail: " + "; ".join(broken))
    return len(expressions)


def alerts_of(servers: Servers) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = get(f"{servers.alertmanager}/api/v2/alerts")
    return [alert for alert in found if alert["labels"]["alertname"] == ALERT]


def check_fires(servers: Servers, cluster: Cluster) -> None:
    wanted = {target for service in CONNECTED for target in cluster.targets[service]}

    def silent() -> list[str]:
        firing = {alert["labels"]["instance"] for alert in alerts_of(servers)}
        return [f"no {ALERT} for {instance}" for instance in wanted - firing]

    wait_until(f"{ALERT} is in Alertmanager, for each replica", silent)
    for alert in alerts_of(servers):
        runbook = alert["annotations"]["runbook_url"]
        if runbook != f"{RUNBOOKS}#the-broker-is-away" or "runbooks" in alert["labels"]:
            raise Failure(f"the alert does not lead to its runbook: {alert}")


def check_resolves(servers: Servers) -> None:
    wait_until(f"{ALERT} is resolved", lambda: [str(alert["labels"]) for alert in alerts_of(servers)])


def say(line: str) -> None:
    print(line, flush=True)


def read_lines() -> "queue.Queue[str]":
    """The lines of standard input. At its end, this process ends as if it were told to."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    threading.Thread(target=read, daemon=True).start()
    return lines


def arguments() -> Cluster:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", required=True, metavar="SERVICE=HOST:PORT")
    parser.add_argument("--database", action="append", required=True, metavar="MODEL=HOST:PORT/NAME")
    parser.add_argument("--broker", required=True, metavar="HOST:PORT")
    given = parser.parse_args()
    targets: dict[str, list[str]] = {service: [] for service in SERVICES}
    for target in given.target:
        service, address = target.split("=", 1)
        targets[service].append(address)
    return Cluster(targets, dict(database.split("=", 1) for database in given.database), given.broker)


def main() -> None:
    cluster = arguments()
    lines = read_lines()
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        servers = start_servers(running, folder, cluster)
        check_targets(servers, cluster)
        say(f"{check_expressions(servers)} expressions were evaluated")
        say("every expression has data")
        lines.get()
        check_fires(servers, cluster)
        say("the alert fires")
        lines.get()
        check_resolves(servers)
        say("the alert is resolved")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"check_observability: {failure}")
