"""TensorRT's build phases in, one rising share out, and a build that Ctrl-C ends."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Observe = Callable[[str, float], None]


def monitor_for(trt: Any, observe: Observe) -> Any:
    """An `IProgressMonitor`: `observe` hears the phase's name and the share of the outermost phase that is done.

    `stop` set ends the build at the next step. An exception must not cross into TensorRT: what `observe` raises is kept
    as `error`, and stops the build too. TensorRT calls it from threads of its own.
    """

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stop = False
            self.error: BaseException | None = None
            self._phases: dict[str, tuple[str | None, int, int]] = {}  # parent, steps, steps that are done
            self._share = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases[phase_name] = (parent_phase, num_steps, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            parent, steps, _ = self._phases.get(phase_name, (None, step + 1, 0))
            self._phases[phase_name] = (parent, steps, step + 1)
            self._share = max(self._share, self._share_at(phase_name))
            try:
                observe(phase_name, self._share)
            except BaseException as error:
                self.error, self.stop = self.error or error, True
            return not self.stop

        def phase_finish(self, phase_name: str) -> None:
            self._phases.pop(phase_name, None)

        def _share_at(self, phase: str | None) -> float:
            share = 0.0
            while phase is not None and phase in self._phases:
                above, steps, done = self._phases[phase]
                share, phase = min(1.0, (done + share) / max(steps, 1)), above
            return share

    return Monitor()


def interruptible(work: Callable[[], Any], monitor: Any) -> Any:
    """What `work` gives, run in a thread of its own: this one stays free to hear Ctrl-C and to stop the monitor.

    Raises what a signal raised here, what `work` raised, and what `observe` raised in the monitor.
    """
    with ThreadPoolExecutor(1, "tensorrt") as thread:
        running = thread.submit(work)
        try:
            found = running.result()
        except BaseException:
            monitor.stop = True
            raise
    if monitor.error is not None:
        raise monitor.error
    return found
