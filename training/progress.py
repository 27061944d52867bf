"""Training progress in, a live bar on a terminal or plain lines elsewhere out; and all of it to TensorBoard."""

from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from training.observer import Observer, Progress

PLAIN_EVERY = 10.0  # seconds between two lines where there is no terminal


class Stages:
    """A context manager that shows how far each stage of some work is: bars on a terminal, a line each elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def stage(self, title: str, fraction: float, figures: str = "") -> None:
        """`fraction` of a stage is done; `figures` stand beside its bar."""
        if not self._console.is_terminal and title not in self._tasks:
            self._console.print(", ".join(filter(None, (title, figures))))
        self._show(title, fraction, figures)

    def data(self, fraction: float) -> None:
        """The images are being read: `fraction` of them are there."""
        self.stage("reading images", fraction)

    def _show(self, title: str, fraction: float, figures: str) -> None:
        if title not in self._tasks:
            self._tasks[title] = self._bar.add_task(title, total=1.0, figures="")
        self._bar.update(self._tasks[title], completed=fraction, figures=figures)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


class TrainingProgress(Stages, Observer):
    """A training on a console: images/s, time left, losses, the last FID, alarms."""

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console)
        self._title = title
        self._next_line = 0.0
        self._began: tuple[int, float] | None = None  # images and seconds of the first report: a resumed run has some

    def judge(self, fraction: float) -> None:
        self.stage("training judge", fraction, "once for each data set")

    def note(self, text: str) -> None:
        self._console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def progress(self, progress: Progress) -> None:
        images, seconds = self._began or (0, 0.0)
        self._began = self._began or (progress.images, progress.seconds)
        spent = progress.seconds - seconds
        figures = [f"{name} {value:.2f}" for name, value in progress.losses.items()]
        figures += [f"FID {progress.quality['fid']:.1f}"] if progress.quality else []
        figures += [f"{(progress.images - images) / spent:,.0f} images/s"] if spent else []
        self._show(self._title, progress.fraction, "  ".join(figures))
        if not self._console.is_terminal and (progress.seconds >= self._next_line or progress.fraction >= 1):
            left = progress.seconds * (1 / progress.fraction - 1) if progress.fraction else 0.0
            line = f"{self._title}: {progress.fraction:4.0%}  {'  '.join(figures)}  {left:.0f} s left"
            self._console.print(line, highlight=False, soft_wrap=True)
            self._next_line = progress.seconds + PLAIN_EVERY
        for alarm in progress.alarms:
            self.note(str(alarm))


class Board(Observer):
    """Every loss, signal and figure of quality over the images seen, for TensorBoard, in a folder of the run."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # needs the package tensorboard, and a second

        self._open = lambda images: SummaryWriter(str(folder), purge_step=images)
        self._writer: SummaryWriter | None = None
        self._quality: dict[str, float] | None = None  # that was written last: reports repeat it

    def progress(self, progress: Progress) -> None:
        if self._writer is None:
            self._writer = self._open(progress.images)  # what a crashed run wrote after its checkpoint is hidden
        judged = {} if progress.quality is self._quality else progress.quality or {}
        self._quality = progress.quality
        for group, figures in (("loss", progress.losses), ("signal", progress.signals), ("val", judged)):
            for name, value in figures.items():
                self._writer.add_scalar(f"{group}/{name}", value, progress.images)
        for alarm in progress.alarms:
            self._writer.add_text("alarm", str(alarm), progress.images)
        self._writer.flush()


class Observers(Observer):
    """Several that listen to one training."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def judge(self, fraction: float) -> None:
        for observer in self._observers:
            observer.judge(fraction)

    def progress(self, progress: Progress) -> None:
        for observer in self._observers:
            observer.progress(progress)

    def note(self, text: str) -> None:
        for observer in self._observers:
            observer.note(text)
