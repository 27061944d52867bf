"""The image identity, held against a Philox of our own and the vectors that docs/image-identity.md quotes."""

import math
import re
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import latents
from server.latents import SEEDS

WORD = 2**64

PAGE = Path(__file__).parents[2] / "docs" / "image-identity.md"
POWERS = {"2⁵³ − 1": 2**53 - 1, "2⁶³ − 1": 2**63 - 1}

seeds = st.one_of(
    st.integers(0, SEEDS - 1),
    st.integers(0, 50),
    st.integers(SEEDS - 50, SEEDS - 1),  # draws that wrap around
)


def philox4x64(counter: int) -> list[int]:
    """Salmon et al. 2011, Philox4x64-10 with key 0: a 256-bit counter -> four 64-bit words."""
    words = [counter >> 64 * place & WORD - 1 for place in range(4)]
    first_key = second_key = 0
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * words[0], WORD)
        high1, low1 = divmod(0xCA5A826395121157 * words[2], WORD)
        words = [high1 ^ words[1] ^ first_key, low1, high0 ^ words[3] ^ second_key, low0]
        first_key = (first_key + 0x9E3779B97F4A7C15) % WORD
        second_key = (second_key + 0xBB67AE8584CAA73B) % WORD
    return words


def uniforms(seed: int, latent: int) -> list[float]:
    """What docs/image-identity.md says, without NumPy. NumPy increments the counter before it makes a block."""
    blocks = math.ceil((latent + 2) / 4)
    words = [word for block in range(blocks) for word in philox4x64(seed * blocks + block + 1)]
    return [((word >> 12) + 0.5) / 2**52 for word in words[: latent + 2]]


def test_our_philox_gives_the_words_that_its_authors_published() -> None:
    published = ["16554d9eca36314c", "db20fe9d672d0fdc", "d7e772cee186176b", "7e68b68aec7ba23b"]
    assert [f"{word:x}" for word in philox4x64(0)] == published


@given(seeds, st.integers(1, 130))
def test_uniforms_are_those_of_an_independent_philox(seed: int, latent: int) -> None:
    assert latents.uniforms(seed, 1, latent)[0].tolist() == uniforms(seed, latent)


def vectors() -> list[tuple[int, list[int], list[float], np.ndarray, int, np.ndarray]]:
    """The rows of the page's table: seed, words, uniforms, z, label, z truncated to 1 σ. Nine digits fix a float32."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in cells if len(row) == 6 and re.fullmatch(r"\d+|2⁵³ − 1|2⁶³ − 1", row[0])]

    def numbers(cell: str) -> list[float]:
        return [float(number.replace("−", "-")) for number in cell.split(", ")]

    return [
        (
            POWERS.get(seed) or int(seed),
            [int(word, 16) for word in words.split()],
            numbers(u),
            np.array(numbers(z), np.float32),
            int(label),
            np.array(numbers(truncated), np.float32),
        )
        for seed, words, u, z, label, truncated in rows
    ]


def test_the_page_s_vectors_are_what_the_server_draws() -> None:
    rows = vectors()
    assert {row[0] for row in rows} == {0, 1, 7, 2**53 - 1, 2**63 - 1}
    for seed, words, u, z, label, truncated in rows:
        assert philox4x64(seed + 1) == words  # latent 2: one block a seed
        assert latents.uniforms(seed, 1, 2)[0, :2].tolist() == u
        drawn, labels = latents.draw(seed, 1, 2, classes=10)
        assert drawn.dtype == np.float32
        assert np.array_equal(drawn[0], z)
        assert labels is not None
        assert (labels.dtype, labels.tolist()) == (np.int64, [label])
        assert np.array_equal(latents.draw(seed, 1, 2, classes=10, truncation=1.0)[0][0], truncated)


@given(seeds, st.integers(1, 8), st.integers(1, 40), st.data())
def test_row_i_of_seed_s_is_the_row_of_seed_s_plus_i(seed: int, count: int, latent: int, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, count - 1))
    alone = (seed + row) % SEEDS
    assert np.array_equal(latents.uniforms(seed, count, latent)[row], latents.uniforms(alone, 1, latent)[0])
    truncation = data.draw(st.none() | st.floats(0.1, 8))
    z, labels = latents.draw(seed, count, latent, 7, None, truncation)
    z_alone, label_alone = latents.draw(alone, 1, latent, 7, None, truncation)
    assert np.array_equal(z[row], z_alone[0])
    assert labels is not None
    assert label_alone is not None
    assert labels[row] == label_alone[0]


def test_a_draw_that_wraps_goes_on_with_seed_0() -> None:
    rows = latents.uniforms(SEEDS - 2, 5, 3)
    assert rows.shape == (5, 5)
    assert np.array_equal(rows[2:], latents.uniforms(0, 3, 3))


@given(seeds, st.integers(1, 8), st.integers(1, 40))
def test_uniforms_lie_strictly_inside_0_and_1(seed: int, count: int, latent: int) -> None:
    u = latents.uniforms(seed, count, latent)
    assert u.shape == (count, latent + 2)
    assert ((u > 0) & (u < 1)).all()


@pytest.mark.parametrize("word", [0, WORD - 1])
def test_the_extreme_words_still_give_finite_latents_and_classes_in_range(
    word: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stuck:
        def __init__(self, key: int, counter: int) -> None: ...

        def random_raw(self, count: int) -> np.ndarray:
            return np.full(count, word, np.uint64)

    monkeypatch.setattr(np.random, "Philox", Stuck)
    for classes in (1, 3, 5, 9, 10, 1000):
        z, labels = latents.draw(0, 2, 3, classes)
        assert np.isfinite(z).all()
        assert labels is not None
        assert labels.tolist() == ([0, 0] if word == 0 else [classes - 1, classes - 1])


@given(seeds, st.integers(1, 20))
def test_latents_are_the_inverse_normal_of_the_uniforms(seed: int, latent: int) -> None:
    z, labels = latents.draw(seed, 1, latent, classes=0)
    exact = [NormalDist().inv_cdf(u) for u in uniforms(seed, latent)[:latent]]
    assert labels is None
    np.testing.assert_allclose(z[0], exact, rtol=2**-23, atol=1e-15)


@given(seeds, st.integers(1, 8), st.floats(1e-3, 8))
def test_truncated_latents_lie_within_psi(seed: int, count: int, truncation: float) -> None:
    z, _ = latents.draw(seed, count, 30, 0, None, truncation)
    assert (np.abs(z) <= np.float32(truncation)).all()


@given(seeds, st.floats(0.05, 6))
def test_truncation_is_the_truncated_normal_and_not_a_clipped_one(seed: int, truncation: float) -> None:
    z, _ = latents.draw(seed, 1, 5, 0, None, truncation)
    normal = NormalDist()
    low, high = normal.cdf(-truncation), normal.cdf(truncation)
    exact = [normal.inv_cdf(low + u * (high - low)) for u in uniforms(seed, 5)[:5]]
    np.testing.assert_allclose(z[0], exact, rtol=1e-6, atol=1e-9)


@given(seeds, st.integers(1, 8), st.integers(1, 1000))
def test_drawn_labels_are_classes_and_the_same_for_every_n(seed: int, count: int, classes: int) -> None:
    _, labels = latents.draw(seed, count, 4, classes)
    _, first = latents.draw(seed, 1, 4, classes)
    assert labels is not None
    assert first is not None
    assert ((labels >= 0) & (labels < classes)).all()
    assert labels[0] == first[0] == int(uniforms(seed, 4)[4] * classes)


@given(seeds, st.integers(1, 8), st.integers(0, 9))
def test_a_given_label_holds_for_all_images_and_leaves_the_latents_alone(seed: int, count: int, label: int) -> None:
    z, labels = latents.draw(seed, count, 4, 10, label)
    assert labels is not None
    assert labels.tolist() == [label] * count
    assert np.array_equal(z, latents.draw(seed, count, 4, 10)[0])
