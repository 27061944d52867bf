"""What becomes of a model's requests and batches in, the sums of Triton's statistics out: those of all workers.

Each worker of a group counts in a file of its place, as `server.group` does: what one has counted outlives it, its
successor goes on with it, and each of them can tell the sum. Seconds are kept as whole nanoseconds.
"""

import mmap
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.bundle import LARGEST
from server.backlog import Part
from server.batcher import Batch, Generated, Settled
from server.group import Group

LAST, IMAGES, SUCCESS, FAIL, QUEUE, INPUT, INFER = 0, 1, 2, 4, 6, 8, 10  # words: a time, a sum, pairs of count and ns
SUMS = 12
PER_SIZE = 3  # words of a batch size: count, ns to make its inputs, ns in the engine
WORDS = SUMS + PER_SIZE * (LARGEST + 1)


@dataclass(frozen=True)
class Lasted:
    """How often something was, and for how long together."""

    count: int
    ns: int


@dataclass(frozen=True)
class Told:
    """`last_inference` in milliseconds since 1970; `batches`: size -> (to make the inputs, in the engine)."""

    last_inference: int
    images: int
    success: Lasted
    fail: Lasted
    queue: Lasted
    compute_input: Lasted
    compute_infer: Lasted
    batches: dict[int, tuple[Lasted, Lasted]]


class Statistics:
    """Of one version of one model. Whoever runs the engine tells of batches; any thread tells of requests."""

    def __init__(self, title: str, group: Group | None = None) -> None:
        self._lock = threading.Lock()
        self._inputs = 0  # ns that the batch under way took to be made
        self._folder = None if group is None else group.folder
        self._pattern = f"{title}.*.statistics"
        words: bytearray | mmap.mmap = bytearray(8 * WORDS)
        if group is not None:
            path = group.folder / self._pattern.replace("*", str(group.place))
            path.touch()
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, 8 * WORDS)  # a full disk is an error now, and a SIGBUS later
                words = mmap.mmap(file.fileno(), 8 * WORDS)
        self._mine = memoryview(words).cast("q")  # an item of NumPy's takes ten times as long to be added to

    def composed(self, parts: Sequence[Part], seconds: float) -> None:
        """A batch of these has its latents."""
        self._inputs = _ns(seconds)
        for part in parts:
            part.request.input_seconds += seconds

    def ran(self, batch: Batch) -> None:
        """It has come out of the engine. As in Triton, one of which nothing came out is not counted."""
        if batch.failed < batch.images:
            place = SUMS + PER_SIZE * batch.images
            self._mine[place] += 1
            self._mine[place + 1] += self._inputs
            self._mine[place + 2] += _ns(batch.compute_seconds)

    def settled(self, settled: Settled) -> None:
        """Requests that were accepted have their images, or will have none."""
        now, failed, images = time.monotonic(), 0, 0
        lasted = failed_for = queued = inputs = computed = 0.0
        for request, outcome in settled:
            if isinstance(outcome, Generated):
                images += request.count
                lasted += now - request.arrived
                queued += outcome.queue_seconds
                inputs += request.input_seconds
                computed += outcome.compute_seconds
            else:
                failed += 1
                failed_for += now - request.arrived
        made, mine = len(settled) - failed, self._mine
        with self._lock:
            mine[LAST] = time.time_ns() // 1_000_000
            if made:
                mine[IMAGES] += images
                mine[SUCCESS] += made
                mine[SUCCESS + 1] += _ns(lasted)
                mine[QUEUE + 1] += _ns(queued)
                mine[INPUT + 1] += _ns(inputs)
                mine[INFER + 1] += _ns(computed)
            if failed:
                mine[FAIL] += failed
                mine[FAIL + 1] += _ns(failed_for)

    def told(self) -> Told:
        """The sums of all workers, up to now."""
        each = [np.array(self._mine)]
        if self._folder is not None:
            each = [np.fromfile(path, np.int64) for path in self._folder.glob(self._pattern)]
            each = [one for one in each if len(one) == WORDS]  # one that is being made is empty
        words = np.sum(each, axis=0)
        made = int(words[SUCCESS])
        sizes = words[SUMS:].reshape(-1, PER_SIZE)
        return Told(
            last_inference=int(max(one[LAST] for one in each)),
            images=int(words[IMAGES]),
            success=Lasted(made, int(words[SUCCESS + 1])),
            fail=Lasted(int(words[FAIL]), int(words[FAIL + 1])),
            queue=Lasted(made, int(words[QUEUE + 1])),
            compute_input=Lasted(made, int(words[INPUT + 1])),
            compute_infer=Lasted(made, int(words[INFER + 1])),
            batches={
                int(size): (Lasted(count, inputs), Lasted(count, engine))
                for size in np.flatnonzero(sizes[:, 0])
                for count, inputs, engine in [sizes[size].tolist()]
            },
        )


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
