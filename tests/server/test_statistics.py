"""Triton's statistics are sums of what happened, over all workers, dead ones too."""

import time
from pathlib import Path

import numpy as np
import pytest

from export.bundle import LARGEST
from export.engines import EngineError
from server.backlog import Part, Request
from server.batcher import Batch, Generated
from server.errors import Expired
from server.group import Group
from server.statistics import Lasted, Statistics

IMAGES = np.zeros((3, 2, 2, 1), np.uint8)


def asked(count: int, seconds_ago: float = 0.0) -> Request:
    return Request(count, arrived=time.monotonic() - seconds_ago)


def batch(images: int, seconds: float, failed: int = 0) -> Batch:
    return Batch(images, images, failed, "drained", seconds, (), seconds)


def made(queued: float, computed: float) -> Generated:
    return Generated(IMAGES, None, queued, computed, len(IMAGES))


def test_it_begins_at_nothing() -> None:
    told = Statistics("digits@1").told()
    assert (told.last_inference, told.images, told.batches) == (0, 0, {})
    assert told.success == told.fail == told.queue == told.compute_input == told.compute_infer == Lasted(0, 0)


def test_requests_and_batches_are_summed() -> None:
    statistics, one, three, late = Statistics("digits@1"), asked(1, 2.0), asked(3, 1.0), asked(5, 4.0)
    before = time.time_ns() // 1_000_000
    statistics.composed([Part(one, 0, 1), Part(three, 0, 3)], 0.25)
    statistics.ran(batch(4, 0.5))
    statistics.settled([(one, made(0.125, 0.5)), (three, made(0.25, 0.5)), (late, Expired("late"))])
    told = statistics.told()
    assert before <= told.last_inference <= time.time_ns() // 1_000_000
    assert told.images == 4
    assert told.success.count == 2
    assert told.success.ns >= 3_000_000_000
    assert told.fail.count == 1
    assert told.fail.ns >= 4_000_000_000
    assert told.queue == Lasted(2, 375_000_000)
    assert told.compute_input == Lasted(2, 500_000_000)  # each was made in a quarter of a second
    assert told.compute_infer == Lasted(2, 1_000_000_000)
    assert told.batches == {4: (Lasted(1, 250_000_000), Lasted(1, 500_000_000))}


def test_what_a_request_that_failed_took_to_be_made_is_not_in_the_sums_of_those_that_did_not() -> None:
    statistics, request = Statistics("digits@1"), asked(1)
    statistics.composed([Part(request, 0, 1)], 0.25)
    statistics.settled([(request, EngineError("broken"))])
    assert (statistics.told().compute_input, statistics.told().fail.count) == (Lasted(0, 0), 1)


@pytest.mark.parametrize(("failed", "counted"), [(0, 1), (1, 1), (2, 0)])
def test_a_batch_of_which_nothing_came_out_is_not_counted(failed: int, counted: int) -> None:
    statistics = Statistics("digits@1")
    statistics.ran(batch(2, 0.5, failed))
    assert len(statistics.told().batches) == counted


def test_the_largest_batch_has_its_place() -> None:
    statistics = Statistics("digits@1")
    statistics.ran(batch(LARGEST, 1.0))
    assert statistics.told().batches[LARGEST][1] == Lasted(1, 1_000_000_000)


def test_every_worker_knows_what_all_have_done_and_a_successor_goes_on(tmp_path: Path) -> None:
    first, second = (Statistics("digits@1", Group(tmp_path, place)) for place in (0, 1))
    for statistics, count in ((first, 1), (second, 2)):
        statistics.ran(batch(count, 0.5))
        statistics.settled([(asked(count), made(0.0, 0.5))])
    del first
    successor = Statistics("digits@1", Group(tmp_path, 0, starts=1))
    successor.ran(batch(2, 0.25))
    successor.settled([(asked(2), made(0.0, 0.25))])
    for told in (successor.told(), second.told()):
        assert (told.images, told.success.count) == (5, 3)
        assert told.last_inference > 0
        assert {size: infer for size, (_, infer) in told.batches.items()} == {
            1: Lasted(1, 500_000_000),
            2: Lasted(2, 750_000_000),
        }


def test_a_version_does_not_count_with_another(tmp_path: Path) -> None:
    group = Group(tmp_path, 0)
    first, eleventh = Statistics("digits@1", group), Statistics("digits@11", group)
    eleventh.settled([(asked(2), made(0.0, 0.0))])
    assert (first.told().images, eleventh.told().images) == (0, 2)
