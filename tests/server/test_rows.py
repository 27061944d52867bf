"""Seeds and latents in one batch: each row is what it would be in a batch of its own kind."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.rows import Given, Rows, compose
from training.latents import Asked, draw_each

LATENT, CLASSES = 5, 3


def brought(count: int, classes: int = CLASSES) -> Given:
    z = np.arange(count * LATENT, dtype=np.float32).reshape(count, LATENT) / 7
    return Given(z, np.arange(count) % classes if classes else None)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4)), min_size=1, max_size=6), st.sampled_from((0, CLASSES)))
def test_a_row_is_the_same_whoever_shares_its_batch(kinds: list[tuple[bool, int]], classes: int) -> None:
    rows: list[Rows] = [
        Asked(100 * place, count) if seeded else brought(count, classes) for place, (seeded, count) in enumerate(kinds)
    ]
    z, labels = compose(rows, LATENT, classes)
    assert z.dtype == np.float32
    assert (labels is None) == (classes == 0)
    row = 0
    for one in rows:
        alone = draw_each([one], LATENT, classes) if isinstance(one, Asked) else (one.z, one.labels)
        mine = slice(row, row := row + one.count)
        assert np.array_equal(z[mine], alone[0])
        if labels is not None:
            assert alone[1] is not None
            assert np.array_equal(labels[mine], alone[1])


@pytest.mark.parametrize("classes", [0, CLASSES])
def test_a_part_of_what_is_given_is_its_rows(classes: int) -> None:
    whole = brought(4, classes)
    part = whole.part(1, 3)
    assert part.count == 2
    assert np.array_equal(part.z, whole.z[1:3])
    assert (part.labels is None) == (whole.labels is None)
    if whole.labels is not None:
        assert part.labels is not None
        assert np.array_equal(part.labels, whole.labels[1:3])
