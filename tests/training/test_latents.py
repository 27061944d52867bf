"""The image identity, held against a Philox of our own and the vectors that docs/image-identity.md quotes."""

import math
import re
import subprocess
import sys
from itertools import accumulate
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import latents
from training.latents import SEEDS
from training.prior import Prior

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


def table(columns: int) -> list[list[str]]:
    """The cells of the page's rows of so many columns that begin with a seed."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text(encoding="utf-8").splitlines()]
    return [row for row in cells if len(row) == columns and re.fullmatch(r"\d+|2⁵³ − 1|2⁶³ − 1", row[0])]


def numbers(cell: str) -> list[float]:
    return [float(number.replace("−", "-")) for number in cell.split(", ")]


def vectors() -> list[tuple[int, list[int], list[float], np.ndarray, int, np.ndarray]]:
    """The rows of the first table: seed, words, uniforms, z, label, z truncated to 1 σ. Nine digits fix a float32."""
    return [
        (
            POWERS.get(seed) or int(seed),
            [int(word, 16) for word in words.split()],
            numbers(u),
            np.array(numbers(z), np.float32),
            int(label),
            np.array(numbers(truncated), np.float32),
        )
        for seed, words, u, z, label, truncated in table(6)
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


# with a prior

WEIGHTS = [0.5, 0.5]  # of the page's small prior
MEAN = [[-2.0, 0.0], [1.0, 0.5]]
SCALE_TRIL = [[[0.5, 0.0], [0.25, 1.0]], [[1.0, 0.0], [-0.5, 0.5]]]
SMALL = Prior(np.array([WEIGHTS]), np.array([MEAN]), np.array([SCALE_TRIL]))


def placed(
    epsilon: list[float], u: float, weights: list[float], mean: list[list[float]], scale_tril: list[list[list[float]]]
) -> list[float]:
    """What the page says of one image of one class, in plain Python: z in float64."""
    possible = [k for k, total in enumerate(accumulate(weights)) if u < total]
    k = possible[0] if possible else max(k for k, weight in enumerate(weights) if weight > 0)
    z = list(mean[k])
    for i in range(len(z)):
        for j in range(i + 1):
            z[i] += scale_tril[k][i][j] * epsilon[j]
    return z


def mixture(classes: int, components: int, latent: int, seed: int) -> Prior:
    """Any prior, with a component of weight 0 in the first class."""
    noise = np.random.default_rng(seed)
    weights = noise.dirichlet(np.ones(components), classes)
    if components > 1:
        weights[0, seed % components] = 0
        weights[0] /= weights[0].sum()
    scale_tril = np.tril(noise.normal(size=(classes, components, latent, latent)))
    diagonal = np.arange(latent)
    scale_tril[..., diagonal, diagonal] = abs(scale_tril[..., diagonal, diagonal])
    return Prior(weights, 3 * noise.normal(size=(classes, components, latent)), scale_tril)


def test_the_page_s_vectors_of_a_prior_are_what_the_server_draws() -> None:
    normal = NormalDist()
    low, high = normal.cdf(-1), normal.cdf(1)
    rows = table(5)
    assert [POWERS.get(row[0]) or int(row[0]) for row in rows] == [0, 1, 7, 2**53 - 1, 2**63 - 1]
    for name, u_cell, k, z_cell, truncated_cell in rows:
        seed = POWERS.get(name) or int(name)
        u = uniforms(seed, 2)
        assert u[3] == float(u_cell)
        assert int(k) == int(u[3] >= 0.5)
        for truncation, cell in ((None, z_cell), (1.0, truncated_cell)):
            drawn, labels = latents.draw(seed, 1, 2, 0, None, truncation, SMALL)
            assert (drawn.dtype, drawn.shape, labels) == (np.float32, (1, 2), None)
            assert np.array_equal(drawn[0], np.array(numbers(cell), np.float32))
            inner = u[:2] if truncation is None else [low + uniform * (high - low) for uniform in u[:2]]
            exact = placed([normal.inv_cdf(uniform) for uniform in inner], u[3], WEIGHTS, MEAN, SCALE_TRIL)
            np.testing.assert_allclose(drawn[0], exact, rtol=2**-23)


@given(seeds, st.integers(1, 4), st.integers(1, 4), st.integers(1, 12), st.none() | st.floats(0.1, 8), st.data())
def test_the_last_uniform_chooses_the_component_of_the_label(
    seed: int, classes: int, components: int, latent: int, truncation: float | None, data: st.DataObject
) -> None:
    prior = mixture(classes, components, latent, data.draw(st.integers(0, 99)))
    label = data.draw(st.none() | st.integers(0, classes - 1))
    z, labels = latents.draw(seed, 1, latent, classes, label, truncation, prior)
    u = uniforms(seed, latent)
    normal = NormalDist()
    low, high = (0.0, 1.0) if truncation is None else (normal.cdf(-truncation), normal.cdf(truncation))
    epsilon = [normal.inv_cdf(low + uniform * (high - low)) for uniform in u[:latent]]
    assert labels is not None
    assert labels[0] == (int(u[latent] * classes) if label is None else label)
    mixed = (array[labels[0]].tolist() for array in (prior.weights, prior.mean, prior.scale_tril))
    np.testing.assert_allclose(z[0], placed(epsilon, u[latent + 1], *mixed), rtol=1e-6, atol=1e-5)


@given(seeds, st.integers(1, 70), st.integers(1, 40), st.none() | st.floats(0.1, 8), st.data())
def test_with_a_prior_too_row_i_of_seed_s_is_the_row_of_seed_s_plus_i(
    seed: int, count: int, latent: int, truncation: float | None, data: st.DataObject
) -> None:
    prior = mixture(3, 4, latent, data.draw(st.integers(0, 99)))
    row = data.draw(st.integers(0, count - 1))
    label = data.draw(st.none() | st.integers(0, 2))
    z, labels = latents.draw(seed, count, latent, 3, label, truncation, prior)
    z_alone, label_alone = latents.draw((seed + row) % SEEDS, 1, latent, 3, label, truncation, prior)
    assert z[row].tobytes() == z_alone[0].tobytes()
    assert labels is not None
    assert label_alone is not None
    assert labels[row] == label_alone[0]


@given(seeds, st.integers(1, 8), st.integers(1, 40), st.none() | st.floats(0.1, 8))
def test_a_prior_that_is_the_normal_distribution_changes_no_byte(
    seed: int, count: int, latent: int, truncation: float | None
) -> None:
    normal = Prior(np.ones((1, 1)), np.zeros((1, 1, latent)), np.eye(latent)[None, None])
    plain, _ = latents.draw(seed, count, latent, 0, None, truncation)
    assert latents.draw(seed, count, latent, 0, None, truncation, normal)[0].tobytes() == plain.tobytes()


@given(seeds, st.floats(1e-3, 8))
def test_truncation_under_a_prior_bounds_epsilon(seed: int, truncation: float) -> None:
    z, _ = latents.draw(seed, 20, 2, 0, None, truncation, SMALL)
    whole, _ = latents.draw(seed, 20, 2, 0, None, None, SMALL)
    component = (latents.uniforms(seed, 20, 2)[:, 3] >= 0.5).astype(int)
    for drawn, within in ((z, truncation), (whole, math.inf)):
        epsilon = [np.linalg.solve(SCALE_TRIL[k], row - MEAN[k]) for row, k in zip(drawn, component, strict=True)]
        assert (np.abs(epsilon) <= within + 1e-5).all()


def test_a_server_loads_neither_torch_nor_scikit_learn() -> None:
    """To fit a prior is training's; to draw from it is not."""
    code = "import sys, server.app; print(sorted({'torch', 'onnx', 'sklearn', 'joblib'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
