"""The image identity, held against docs/image-identity.md: its formulas in plain Python, and the vectors it quotes."""

import math
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from training import latents
from training.latents import SEEDS, Asked
from training.prior import Prior

WORD = 2**64

PAGE = Path(__file__).parents[2] / "docs" / "image-identity.md"
POWERS = {"2⁵³ − 1": 2**53 - 1, "2⁶³ − 1": 2**63 - 1}
CLASSES = 3
SMALL = Prior(  # the page's
    weights=np.array([[0.5, 0.5]]),
    mean=np.array([[[-2.0, 0.0], [1.0, 0.5]]]),
    scale_tril=np.array([[[[0.5, 0.0], [0.25, 1.0]], [[1.0, 0.0], [-0.5, 0.5]]]]),
)

Model = tuple[int, int, Prior | None]  # latent, classes, prior
Rows = tuple[np.ndarray, np.ndarray | None]  # z, labels


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
    """The numbers of a seed in (0, 1). NumPy increments the counter before it makes a block."""
    blocks = math.ceil((latent + 2) / 4)
    words = [word for block in range(blocks) for word in philox4x64(seed * blocks + block + 1)]
    return [((word >> 12) + 0.5) / 2**52 for word in words[: latent + 2]]


def image(
    seed: int, label: int | None, truncation: float | None, latent: int, classes: int, prior: Prior | None
) -> tuple[list[float], int]:
    """What docs/image-identity.md says of one image: z in float64, and the label, 0 without classes."""
    u = uniforms(seed, latent)
    low, high = (0.0, 1.0) if truncation is None else (ndtr(-truncation), ndtr(truncation))
    epsilon = [float(ndtri(low + uniform * (high - low))) for uniform in u[:latent]]
    drawn = math.floor(u[latent] * classes) if label is None or not classes else label
    if prior is None:
        return epsilon, drawn
    weights, mean, scale_tril = (array[drawn].tolist() for array in (prior.weights, prior.mean, prior.scale_tril))
    possible = [k for k, total in enumerate(accumulate(weights)) if u[latent + 1] < total]
    k = possible[0] if possible else max(k for k, weight in enumerate(weights) if weight > 0)
    z = mean[k]
    for i in range(latent):
        for j in range(i + 1):
            z[i] += scale_tril[k][i][j] * epsilon[j]
    return z, drawn


seeds = st.one_of(
    st.integers(0, SEEDS - 1),
    st.integers(0, 50),
    st.integers(SEEDS - 8, SEEDS - 1),  # draws that wrap around
)


@st.composite
def requests(draw: st.DrawFn) -> Asked:
    """One request, whose label is of all its images, of each, or left to them."""
    count = draw(st.integers(1, 8))
    one = st.integers(0, CLASSES - 1)
    each = st.lists(one, min_size=count, max_size=count).map(lambda labels: np.array(labels, np.int64))
    return Asked(draw(seeds), count, draw(st.none() | one | each), draw(st.none() | st.floats(0.01, 8)))


packs = st.lists(requests(), min_size=1, max_size=8)


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


@st.composite
def models(draw: st.DrawFn) -> Model:
    latent, classes = draw(st.integers(1, 30)), draw(st.sampled_from([0, CLASSES]))
    prior = mixture(max(classes, 1), draw(st.integers(1, 4)), latent, draw(st.integers(0, 99)))
    return latent, classes, draw(st.sampled_from([None, prior]))


def test_our_philox_gives_the_words_that_its_authors_published() -> None:
    published = ["16554d9eca36314c", "db20fe9d672d0fdc", "d7e772cee186176b", "7e68b68aec7ba23b"]
    assert [f"{word:x}" for word in philox4x64(0)] == published


@given(seeds, st.integers(1, 130))
def test_uniforms_are_those_of_an_independent_philox(seed: int, latent: int) -> None:
    assert latents.uniforms([Asked(seed, 1)], latent)[0].tolist() == uniforms(seed, latent)


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
        assert latents.uniforms([Asked(seed, 1)], 2)[0, :2].tolist() == u
        drawn, labels = latents.draw(seed, 1, 2, classes=10)
        assert drawn.dtype == np.float32
        assert np.array_equal(drawn[0], z)
        assert labels is not None
        assert (labels.dtype, labels.tolist()) == (np.int64, [label])
        assert np.array_equal(latents.draw(seed, 1, 2, classes=10, truncation=1.0)[0][0], truncated)
        assert_same((drawn, labels), alone(Asked(seed, 1), 0, 2, 10, None))


def test_the_page_s_vectors_of_a_prior_are_what_the_server_draws() -> None:
    rows = table(5)
    assert [POWERS.get(row[0]) or int(row[0]) for row in rows] == [0, 1, 7, 2**53 - 1, 2**63 - 1]
    for name, u, k, z, truncated in rows:
        seed = POWERS.get(name) or int(name)
        assert uniforms(seed, 2)[3] == float(u)
        assert int(k) == int(float(u) >= 0.5)
        for truncation, cell in ((None, z), (1.0, truncated)):
            drawn, labels = latents.draw(seed, 1, 2, 0, None, truncation, SMALL)
            assert (drawn.dtype, drawn.shape, labels) == (np.float32, (1, 2), None)
            assert np.array_equal(drawn[0], np.array(numbers(cell), np.float32))
            assert_same((drawn, labels), alone(Asked(seed, 1, None, truncation), 0, 2, 0, SMALL))


# many requests at once


def assert_same(drawn: Rows, expected: Rows) -> None:
    """Bit for bit."""
    for some, others in zip(drawn, expected, strict=True):
        assert (some is None) == (others is None)
        if some is not None and others is not None:
            assert (some.dtype, some.shape) == (others.dtype, others.shape)
            assert some.tobytes() == others.tobytes()


def stacked(draws: list[Rows]) -> Rows:
    labels = [labels for _, labels in draws if labels is not None]
    return np.concatenate([z for z, _ in draws]), np.concatenate(labels) if labels else None


def alone(one: Asked, row: int, latent: int, classes: int, prior: Prior | None) -> Rows:
    """An image of a request, made by itself as the page says."""
    label = int(one.label[row]) if isinstance(one.label, np.ndarray) else one.label
    z, drawn = image((one.seed + row) % SEEDS, label, one.truncation, latent, classes, prior)
    return np.array([z], np.float64).astype(np.float32), np.array([drawn], np.int64) if classes else None


@given(packs, models())
def test_a_pack_of_requests_is_their_images_each_made_by_itself(asked: list[Asked], model: Model) -> None:
    made = stacked([alone(one, row, *model) for one in asked for row in range(one.count)])
    assert_same(latents.draw_each(asked, *model), made)


@given(packs, models())
def test_a_pack_of_requests_is_the_draws_of_each(asked: list[Asked], model: Model) -> None:
    latent, classes, prior = model
    draws = [latents.draw(one.seed, one.count, latent, classes, one.label, one.truncation, prior) for one in asked]
    assert_same(latents.draw_each(asked, *model), stacked(draws))


@given(requests(), models(), st.data())
def test_any_split_of_a_request_gives_the_same_rows(one: Asked, model: Model, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, one.count), max_size=4)))
    parts = [one.part(start, end) for start, end in zip([0, *cuts], [*cuts, one.count], strict=True)]
    whole = latents.draw_each([one], *model)
    assert_same(latents.draw_each(parts, *model), whole)
    assert_same(stacked([latents.draw_each([part], *model) for part in parts]), whole)


@given(packs, models(), st.data())
def test_the_order_of_requests_moves_their_rows_and_changes_none(
    asked: list[Asked], model: Model, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(asked))))
    z, labels = latents.draw_each(asked, *model)
    owner = np.repeat(range(len(asked)), [one.count for one in asked])
    rows = np.concatenate([np.flatnonzero(owner == place) for place in order])
    moved = latents.draw_each([asked[place] for place in order], *model)
    assert_same(moved, (z[rows], None if labels is None else labels[rows]))


@pytest.mark.parametrize("latent", [10, 100, 130])
def test_a_draw_goes_on_where_the_counter_s_low_word_overflows(latent: int) -> None:
    blocks = -(-(latent + 2) // 4)
    one = Asked(WORD // blocks - 2, 5)
    assert one.seed * blocks < WORD < (one.seed + one.count) * blocks
    assert_same(latents.draw_each([one], latent, 0), stacked([alone(one, row, latent, 0, None) for row in range(5)]))


def test_threads_that_draw_at_once_draw_what_each_would_alone() -> None:
    packs = [[Asked(1000 * thread + 7 * row, 3) for row in range(20)] for thread in range(8)]
    expected = [latents.draw_each(asked, 100, CLASSES) for asked in packs]
    with ThreadPoolExecutor(len(packs)) as pool:
        drawn = list(pool.map(lambda asked: latents.draw_each(asked, 100, CLASSES), 20 * packs))
    for some, others in zip(drawn, 20 * expected, strict=True):
        assert_same(some, others)


# the numbers themselves


@pytest.mark.parametrize("word", [0, WORD - 1])
def test_the_extreme_words_still_give_finite_latents_and_classes_in_range(
    word: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "_words", lambda asked, blocks: np.full(2 * 4 * blocks, word, np.uint64))
    for classes in (1, 3, 5, 9, 10, 1000):
        z, labels = latents.draw(0, 2, 3, classes)
        assert np.isfinite(z).all()
        assert labels is not None
        assert labels.tolist() == ([0, 0] if word == 0 else [classes - 1, classes - 1])


def test_a_truncation_leaves_the_farthest_latents_of_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "_words", lambda asked, blocks: np.zeros(len(asked) * 4 * blocks, np.uint64))
    plain, truncated = Asked(0, 1), Asked(0, 1, truncation=8.0)
    z, _ = latents.draw_each([plain, truncated], 2, 0)
    assert (z[0] < -8).all()
    assert (z[1] >= -8).all()
    assert_same((z[:1], None), latents.draw_each([plain], 2, 0))


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


@given(seeds, st.integers(1, 1000))
def test_a_drawn_label_is_one_of_any_number_of_classes(seed: int, classes: int) -> None:
    _, labels = latents.draw(seed, 1, 4, classes)
    assert labels is not None
    assert 0 <= labels[0] < classes
    assert labels[0] == int(uniforms(seed, 4)[4] * classes)


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
    component = (latents.uniforms([Asked(seed, 20)], 2)[:, 3] >= 0.5).astype(int)
    for drawn, within in ((z, truncation), (whole, math.inf)):
        for row, k in zip(drawn, component, strict=True):
            epsilon = np.linalg.solve(SMALL.scale_tril[0, k], row - SMALL.mean[0, k])
            assert (np.abs(epsilon) <= within + 1e-5).all()


def test_a_server_loads_neither_torch_nor_scikit_learn() -> None:
    """To fit a prior is training's; to draw from it is not."""
    code = "import sys, server.app; print(sorted({'torch', 'onnx', 'sklearn', 'joblib'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
