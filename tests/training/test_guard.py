"""A guard undoes what a failed step left behind, and says when to go back and when to give up."""

from typing import Any

import pytest
import torch
from torch import nn

from training.guard import IN_A_ROW, ROLL_BACKS, Guard


@pytest.fixture
def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def fail(guard: Guard, times: int) -> list[bool]:
    answers = []
    for _ in range(times):
        guard.before()
        answers.append(guard.failed())
    return answers


def test_a_failed_step_leaves_the_batch_statistics_as_they_were(network: nn.Sequential) -> None:
    guard = Guard([nn.Linear(1, 1), network])
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    guard.before()
    network(torch.full((4, 2), torch.nan))
    assert network.state_dict()["1.running_mean"].isnan().all()
    guard.failed()
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())


def test_a_finite_step_keeps_its_batch_statistics(network: nn.Sequential) -> None:
    guard = Guard([network])
    guard.before()
    network(torch.randn(4, 2))
    guard.passed()
    assert network.state_dict()["1.num_batches_tracked"] == 1
    assert guard.skipped == 0


def test_the_third_failed_step_in_a_row_says_roll_back(network: nn.Sequential) -> None:
    guard = Guard([network])
    assert IN_A_ROW == 3
    assert fail(guard, 7) == [False, False, True, False, False, True, False]
    assert (guard.skipped, guard.roll_backs) == (7, 2)


def test_a_finite_step_starts_the_row_anew(network: nn.Sequential) -> None:
    guard = Guard([network])
    fail(guard, 2)
    guard.before()
    guard.passed()
    assert fail(guard, 2) == [False, False]
    assert (guard.skipped, guard.roll_backs, guard.factor) == (4, 0, 1)


def test_each_roll_back_halves_the_rates_and_the_third_is_the_last(network: nn.Sequential) -> None:
    guard, seen = Guard([network]), []
    assert ROLL_BACKS == 3
    for _ in range(4):
        seen.append((guard.factor, guard.spent))
        fail(guard, 3)
    assert seen == [(1, False), (0.5, False), (0.25, False), (0.125, True)]


def test_the_good_state_is_a_copy_when_it_is_kept_and_whenever_it_is_given() -> None:
    guard = Guard([])
    state: dict[str, Any] = {"step": 1, "weights": {"w": torch.zeros(2)}}
    guard.keep(lambda: state)
    state["weights"]["w"].fill_(torch.nan)
    first = guard.good
    assert first["weights"]["w"].tolist() == [0, 0]
    first["weights"]["w"].fill_(7)
    first["step"] = 9
    assert guard.good["weights"]["w"].tolist() == [0, 0]
    assert guard.good["step"] == 1


def test_a_state_right_after_a_failed_step_is_not_good(network: nn.Sequential) -> None:
    guard = Guard([network])
    guard.keep(lambda: {"step": 1})
    fail(guard, 1)
    guard.keep(lambda: {"step": 2})
    assert guard.good == {"step": 1}
    guard.passed()
    guard.keep(lambda: {"step": 3})
    assert guard.good == {"step": 3}


def test_a_first_state_is_kept_even_after_a_failed_step(network: nn.Sequential) -> None:
    """A run that stopped between two failed steps goes on with nothing older to go back to."""
    guard = Guard([network])
    guard.load_state_dict({"skipped": 2, "in_a_row": 2, "roll_backs": 0})
    guard.keep(lambda: {"step": 1})
    guard.keep(lambda: {"step": 2})
    assert guard.good == {"step": 1}


def test_a_guard_goes_on_where_another_stopped(network: nn.Sequential) -> None:
    first, second = Guard([network]), Guard([network])
    fail(first, 5)
    second.load_state_dict(first.state_dict())
    assert (second.factor, second.skipped) == (0.5, 5)
    assert fail(second, 1) == [True]
