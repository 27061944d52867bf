"""Training progress in, a live bar on a terminal or plain lines elsewhere out."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from training import loop

PLAIN_EVERY = 10.0  # seconds between two lines where there is no terminal


class TrainingProgress:
    """A context manager that is called with each `loop.Progress`; `judge` hears of the judge's training."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._next_line = 0.0

    def judge(self, fraction: float) -> None:
        """The judge is being trained: `fraction` of it is done."""
        title, figures = "training judge", "once for each data set"
        self._show(title, fraction, figures)
        if not self._console.is_terminal and fraction == 0:
            self._console.print(f"{title}, {figures}")

    def __call__(self, progress: loop.Progress) -> None:
        rate = progress.images / progress.seconds if progress.seconds else 0.0
        losses = "  ".join(f"{name} {value:.2f}" for name, value in progress.losses.items())
        figures = f"{losses}  {rate:,.0f} images/s"
        self._show(self._title, progress.fraction, figures)
        if not self._console.is_terminal and (progress.seconds >= self._next_line or progress.fraction >= 1):
            left = progress.seconds * (1 / progress.fraction - 1)
            line = f"{self._title}: {progress.fraction:4.0%}  {figures}  {left:.0f} s left"
            self._console.print(line, highlight=False, soft_wrap=True)
            self._next_line = progress.seconds + PLAIN_EVERY

    def _show(self, title: str, fraction: float, figures: str) -> None:
        if title not in self._tasks:
            self._tasks[title] = self._bar.add_task(title, total=1.0, figures="")
        self._bar.update(self._tasks[title], completed=fraction, figures=figures)

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
