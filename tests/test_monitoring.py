"""Alert rules and dashboard, tried with the real promtool and a real Prometheus on loopback."""

from __future__ import annotations

import http.server
import json
import math
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from rig import Rig
from xray_watcher.core.status_report import StatusReport
from xray_watcher.core.values import ModelInfo
from xray_watcher.reports.metrics import CONTENT_TYPE, Situation, exposition
from xray_watcher.system.clock import SystemClock
from xray_watcher.web.shared_limits import SharedLimits
from xray_watcher.web.shared_limits import exposition as web_exposition

DEPLOY = Path(__file__).parents[1] / "deploy"
DOCS = DEPLOY.with_name("docs")
RULES = DEPLOY / "prometheus" / "alerts.yml"
TESTS = sorted(RULES.parent.glob("*.test.yml"))
DASHBOARD = json.loads((DEPLOY / "grafana" / "xray-watcher.json").read_text())
NEEDED = "is not on this machine: sh .ci/apt-install prometheus"

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason=f"promtool {NEEDED}")
needs_prometheus = pytest.mark.skipif(not shutil.which("prometheus"), reason=f"prometheus {NEEDED}")


def queries() -> dict[str, str]:
    """Every query of the dashboard, by its panel, as Grafana would send it."""
    variables = {"$instance": ".*", "$__rate_interval": "10s", "$__range": "1m"}
    found = {}
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            query = target["expr"]
            for name, value in variables.items():
                query = query.replace(name, value)
            assert "$" not in query, query
            found[f"{panel['title']} {target['refId']}"] = query
    return found


def promtool(*arguments: str, **more: Any) -> str:
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False, **more
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_promtool
def test_the_alert_rules_are_sound_and_fire_when_they_should() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(RULES))
    promtool("test", "rules", *map(str, TESTS))


def test_every_alert_is_tried() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    tried = "".join(path.read_text() for path in TESTS)
    fired = re.findall(r"alertname: (\w+)\n +exp_alerts", tried)
    assert alerts == set(fired)


class Export:
    """A daemon whose metrics Prometheus reads; each scrape finds newly filed images."""

    def __init__(self, root: Path) -> None:
        self._rig = Rig(root, max_size=4)
        self._told = {
            "waiting": {"images": 1, "oldest_s": 5.0, "codes": {"unreadable": 1}, "barred": 0},
            "at": "",
            "troubles": {"disk": "It is full."},
            "waiting_in_inbox": 3,
            "unfinished": 1,
            "ignored": 0,
            "oldest_waiting_s": 12.5,
            "model": {
                **asdict(ModelInfo("phantom", "ab" * 32, "float32", simulated=True)),
            },
        }
        self._drops = 0

    def text(self) -> bytes:
        """File some images of each kind, then render."""
        for content in ("picture:Edema", "picture:Fracture", "picture:Effusion", "unreadable"):
            self._rig.drop(f"{self._drops}.jpg", f"{content}#{self._drops}")
            self._drops += 1
        self._rig.drop("again.jpg", "picture:Edema#0")  # gets a flag: the same bytes
        self._rig.settle()
        now = self._rig.clock.now()
        report = StatusReport.from_json(self._told | {"at": now.isoformat()})
        free = {"inbox": 5_000_000_000, "logs": 6_000_000_000}
        situation = Situation(now, report, now, free, 1_000_000_000, ("webhook",))
        return exposition(self._rig.ledger.totals(), situation)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port on which the metrics are told; the ledger lives in the serving thread."""
    root = tmp_path_factory.mktemp("export")
    exports: list[Export] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not exports:
                exports.append(Export(root))
            text = exports[0].text()
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Prometheus:
    """A real one, asked through its HTTP API."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self._base}/{path}", timeout=10) as answer:
            return json.load(answer)["data"]

    def ask(self, query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(f"query?{urllib.parse.urlencode({'query': query})}")[
            "result"
        ]
        return found

    def wait_until_it_knows(self, query: str, process: subprocess.Popen[bytes]) -> None:
        until_s = time.monotonic() + 60
        while True:
            assert process.poll() is None, "prometheus has ended"
            try:
                if self.ask(query):
                    return
            except (urllib.error.URLError, ConnectionError):
                pass
            assert time.monotonic() < until_s, f"nothing for {query}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def prometheus(export: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    port = free_port()
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": "xray", "static_configs": [{"targets": [f"127.0.0.1:{export}"]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # YAML reads JSON
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            asked = Prometheus(port)
            asked.wait_until_it_knows("count_over_time(xray_watcher_up[10s]) >= 4", process)
            yield asked
        finally:
            process.terminate()
            process.wait(20)


@needs_prometheus
def test_a_real_prometheus_takes_every_sample(prometheus: Prometheus, export: int) -> None:
    (target,) = prometheus.get("targets")["activeTargets"]
    assert target["health"] == "up", target["lastError"]
    (received,) = prometheus.ask("xray_watcher_received_total")
    assert float(received["value"][1]) >= 16
    types = prometheus.get("metadata")
    assert types["xray_watcher_filed_seconds"][0]["type"] == "histogram"
    assert types["xray_watcher_received_total"][0]["type"] == "counter"
    with urllib.request.urlopen(f"http://127.0.0.1:{export}/metrics", timeout=10) as answer:
        promtool("check", "metrics", input=answer.read().decode())


@needs_prometheus
@pytest.mark.parametrize("panel", queries())
def test_every_panel_of_the_dashboard_shows_something(panel: str, prometheus: Prometheus) -> None:
    until_s = time.monotonic() + 30  # a loaded machine may have missed the scrapes of a rate
    while True:
        values = [float(series["value"][1]) for series in prometheus.ask(queries()[panel])]
        if values and any(map(math.isfinite, values)):
            return
        assert time.monotonic() < until_s, (queries()[panel], values)
        time.sleep(0.5)


@needs_prometheus
def test_the_alerts_that_hold_are_found_by_prometheus_itself(prometheus: Prometheus) -> None:
    rules = {rule["name"]: rule for group in prometheus.get("rules")["groups"]
             for rule in group["rules"]}  # fmt: skip
    assert all(rule["health"] != "err" for rule in rules.values()), rules
    until_s = time.monotonic() + 30
    while not prometheus.ask('ALERTS{alertname="XrayWatcherDegraded"}'):
        assert time.monotonic() < until_s
        time.sleep(0.5)


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_documentation_lists_exactly_what_is_told(tmp_path: Path) -> None:
    shared = SharedLimits.of(8, SystemClock())
    text = Export(tmp_path).text() + web_exposition(shared.figures(0))
    told = set(re.findall(r"^# TYPE (\w+)", text.decode(), re.MULTILINE))
    documented = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "metrics.md").read_text(), re.MULTILINE))
    assert documented == told
