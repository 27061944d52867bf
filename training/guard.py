"""A state that was good in, that state back out when steps stop being finite."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

IN_A_ROW = 3  # steps that are not finite before the training is rolled back
ROLL_BACKS = 3  # before it is given up

State = dict[str, Any]


class Guard:
    """Counts steps that were not finite, and says when to go back.

    A step that fails changes none of the weights that it is for; what its forward pass left in buffers (statistics of
    batch normalisation) is put back here. The third in a row means that the weights themselves have gone wrong: back to
    the last good state, with halved rates. The third time it is given up.
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        self._buffers = [buffer for network in networks for buffer in network.buffers()]
        self._before: list[Tensor] = []
        self._good: State = {}
        self.skipped = self.in_a_row = self.roll_backs = 0

    @property
    def factor(self) -> float:
        """What the rates are multiplied with: halved by each roll-back."""
        return 0.5**self.roll_backs

    @property
    def good(self) -> State:
        """The last good state, to be loaded: another copy each time."""
        return copy.deepcopy(self._good)

    def keep(self, state: Callable[[], State]) -> None:
        """Take the present state as good, unless the last step was not and there is an older one."""
        if not self.in_a_row or not self._good:
            self._good = copy.deepcopy(state())

    def before(self) -> None:
        """A step begins."""
        self._before = [buffer.clone() for buffer in self._buffers]

    def passed(self) -> None:
        """The step was finite."""
        self.in_a_row = 0

    def failed(self) -> bool:
        """The step was not finite: skip it; true means roll back."""
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(before)
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row < IN_A_ROW:
            return False
        self.in_a_row = 0
        self.roll_backs += 1
        return True

    @property
    def spent(self) -> bool:
        """Whether it was rolled back so often that another time would change nothing."""
        return self.roll_backs >= ROLL_BACKS

    def state_dict(self) -> dict[str, int]:
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, "roll_backs": self.roll_backs}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skipped, self.in_a_row, self.roll_backs = state["skipped"], state["in_a_row"], state["roll_backs"]
