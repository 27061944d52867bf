"""How many of so many are there in, a live bar on a terminal or a line every ten seconds elsewhere out."""

import time

from rich.console import Console
from rich.markup import escape

from training.progress import PLAIN_EVERY, Stages


class Counting(Stages):
    """Of one piece of work with `of` images, `done` so far; a context manager."""

    def __init__(self, console: Console, title: str, of: int) -> None:
        super().__init__(console)
        self.done = 0
        self._title, self._of = title, of
        self._began = time.monotonic()
        self._next_line = self._began + PLAIN_EVERY

    def count(self, done: int) -> None:
        """`done` of them are there."""
        ended = self.done < done == self._of
        self.done = done
        now = time.monotonic()
        rate = done / max(now - self._began, 1e-3)
        figures = f"{done:,} of {self._of:,}  {rate:,.0f} images/s"
        self._show(escape(self._title), done / self._of, figures)
        if not self._console.is_terminal and (now >= self._next_line or ended):
            left = (self._of - done) / rate if rate else 0.0
            line = f"{self._title}: {figures}  {left:.0f} s left"
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)
            self._next_line = now + PLAIN_EVERY
