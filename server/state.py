"""What every route reads: the settings, the live models, the metrics, and whether the server is draining."""

from dataclasses import dataclass, field

from server.observer import Drain
from server.repository import Repository
from server.settings import Settings
from server.telemetry import Metrics


@dataclass(frozen=True)
class State:
    settings: Settings
    repository: Repository
    metrics: Metrics
    drain: Drain = field(default_factory=Drain)
