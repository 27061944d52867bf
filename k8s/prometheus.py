"""Addresses of limner's servers in, a Prometheus with limner's rules out, which watches them from this machine.

`.venv/bin/python k8s/prometheus.py 127.0.0.1:8000` says where its page is, until Ctrl-C. Needs the program prometheus
(Debian's package of that name); what it has seen is kept in a temporary folder and ends with it.
"""

import argparse
import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

RULES = Path(__file__).with_name("components") / "monitoring" / "rules.yaml"
PATIENCE = 60.0  # seconds until it answers, or never will


class PrometheusError(Exception):
    """What Prometheus said where it refused a query or did not start."""


@dataclass(frozen=True)
class Series:
    """`labels` with the name among them; `points` are (seconds since 1970, value)."""

    labels: dict[str, str]
    points: list[tuple[float, float]]

    @property
    def value(self) -> float:
        """The last one."""
        return self.points[-1][1]


@dataclass(frozen=True)
class Prometheus:
    """One that runs. `process` is waited for by whoever started it."""

    url: str
    process: subprocess.Popen[bytes]

    def ask(self, query: str) -> list[Series]:
        """How it is now. Raises PrometheusError."""
        found = self._get("query", query=query)
        if found["resultType"] == "scalar":
            return [Series({}, [_point(found["result"])])]
        return [Series(each["metric"], [_point(each["value"])]) for each in found["result"]]

    def ask_range(self, query: str, start: float, end: float, step: float) -> list[Series]:
        """How it was, every `step` seconds. Raises PrometheusError."""
        found = self._get("query_range", query=query, start=start, end=end, step=step)
        return [Series(each["metric"], [*map(_point, each["values"])]) for each in found["result"]]

    def rules(self) -> list[dict[str, Any]]:
        """Each rule as Prometheus has it, with its health, its last error, and of alerts their state."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **asked: str | float) -> Any:
        said = httpx.get(f"{self.url}/api/v1/{what}", params=asked, timeout=PATIENCE).json()
        if said["status"] != "success":
            raise PrometheusError(f"{said['error']}: {asked.get('query', what)}")
        return said["data"]


def groups(rules: Path = RULES) -> dict[str, Any]:
    """A PrometheusRule's groups, as a Prometheus without an operator reads them."""
    return yaml.safe_load(rules.read_text(encoding="utf-8"))["spec"]


def filled(query: str, interval: str, namespace: str = ".*", model: str = ".*", version: str = ".*") -> str:
    """A dashboard's query with its variables filled in, as Grafana does before it asks."""
    variables = {"$__rate_interval": interval, "$namespace": namespace, "$model": model, "$version": version}
    for name, value in variables.items():
        query = query.replace(name, value)
    return query


@contextlib.contextmanager
def watching(
    addresses: Sequence[str], namespace: str = "limner", seconds: float = 10.0, program: str = "prometheus"
) -> Iterator[Prometheus]:
    """A Prometheus that scrapes these, and evaluates limner's rules, every so many `seconds`; with the labels that
    Kubernetes would give, pods limner-0, limner-1 ... Raises PrometheusError.
    """
    with tempfile.TemporaryDirectory(prefix="limner-prometheus-") as home:
        with socket.create_server(("127.0.0.1", 0)) as free:
            listen = f"127.0.0.1:{free.getsockname()[1]}"
        pods = [
            {"targets": [address], "labels": {"namespace": namespace, "pod": f"limner-{place}"}}
            for place, address in enumerate(addresses)
        ]
        every = f"{round(seconds * 1e3)}ms"
        config = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "limner", "static_configs": pods}],
        }
        rules = groups()
        for group in rules["groups"]:
            group.pop("interval", None)
        for name, content in (("prometheus.yaml", config), ("rules.yaml", rules)):
            (Path(home) / name).write_text(yaml.safe_dump(content), encoding="utf-8")
        command = [program, f"--config.file={home}/prometheus.yaml", f"--storage.tsdb.path={home}/data"]
        with (Path(home) / "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603
                [*command, f"--web.listen-address={listen}", "--log.level=warn"], stdout=log, stderr=log
            )
        try:
            _until_ready(process, f"http://{listen}", Path(home) / "log")
            yield Prometheus(f"http://{listen}", process)
        finally:
            process.terminate()
            process.wait()


def _until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/-/ready").status_code == httpx.codes.OK:
                return
        time.sleep(0.05)
    raise PrometheusError(f"prometheus did not start: {log.read_text(errors='replace').strip()}")


def _point(said: list[Any]) -> tuple[float, float]:
    return float(said[0]), float(said[1])


def _address(text: str) -> str:
    if re.fullmatch(r"[^\s/:]+:\d{1,5}", text) is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no HOST:PORT, such as 127.0.0.1:8000")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description="Watch limner's servers with its own rules.")
    parser.add_argument("addresses", nargs="+", metavar="HOST:PORT", type=_address)
    asked = parser.parse_args()
    if shutil.which("prometheus") is None:
        sys.exit("prometheus is not installed; on Debian: apt install prometheus")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end it with what was started
    try:
        with watching(asked.addresses) as prometheus:
            print(f"{prometheus.url}/alerts   Ctrl-C ends it", flush=True)  # noqa: T201
            prometheus.process.wait()
            sys.exit("prometheus has ended by itself")
    except KeyboardInterrupt:
        return 0
    except PrometheusError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    sys.exit(main())
