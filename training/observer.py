"""What a training says while it runs, and who listens."""

from dataclasses import dataclass

from training.alarms import Alarm


@dataclass(frozen=True)
class Progress:
    """Where training is: `fraction` of its budget in [0, 1]; mean losses and signals since the last report.

    `quality` are the figures of the last evaluation, `alarms` those that were raised since the last report.
    """

    step: int
    images: int
    seconds: float
    fraction: float
    losses: dict[str, float]
    signals: dict[str, float]
    quality: dict[str, float] | None = None
    alarms: tuple[Alarm, ...] = ()


class Observer:
    """Who listens to a training; deaf as it stands."""

    def judge(self, fraction: float) -> None:
        """The judge is being trained, and `fraction` of it is done; not called where the cache has it."""

    def progress(self, progress: Progress) -> None:
        """Called every RECORD_EVERY steps, and after each evaluation."""

    def note(self, text: str) -> None:
        """A line that the user should read."""
