"""A mixture is fitted to whatever an encoder gives, kept without a changed bit, and places each image by itself."""

import io
import subprocess
import sys
import warnings
import zipfile
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from training.prior import Prior

LARGEST = 1 - 2**-53  # of the uniforms of docs/image-identity.md; the smallest is 2⁻⁵³


def some_prior(classes: int, components: int, latent: int, seed: int) -> Prior:
    noise = np.random.default_rng(seed)
    scale_tril = np.tril(noise.normal(size=(classes, components, latent, latent)))
    diagonal = np.arange(latent)
    scale_tril[..., diagonal, diagonal] = abs(scale_tril[..., diagonal, diagonal])
    weights = noise.dirichlet(np.ones(components), classes)
    return Prior(weights, noise.normal(size=(classes, components, latent)), scale_tril)


def same(one: Prior, other: Prior) -> bool:
    return all(np.array_equal(one.state()[name], other.state()[name]) for name in ("weights", "mean", "scale_tril"))


def draw(prior: Prior, count: int, label: int | None = None) -> np.ndarray:
    noise = np.random.default_rng(1)
    labels = None if label is None else np.full(count, label)
    return prior.place(noise.standard_normal((count, prior.latent)), noise.random(count), labels)


# placing

shapes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 40), st.integers(0, 999))


@given(shapes, st.integers(1, 70), st.integers(0, 999))
def test_a_row_is_the_sum_from_left_to_right_bit_for_bit(
    shape: tuple[int, int, int, int], count: int, seed: int
) -> None:
    """In plain Python: a float is IEEE's float64, and * and + round each by itself."""
    prior = some_prior(*shape)
    noise = np.random.default_rng(seed)
    epsilon, u, label = noise.normal(size=(count, shape[2])), noise.random(count), noise.integers(0, shape[0], count)
    z = prior.place(epsilon, u, label)
    assert (z.dtype, z.shape) == (np.float64, epsilon.shape)
    row = int(noise.integers(count))
    c, numbers = label[row], epsilon[row].tolist()
    totals = list(accumulate(prior.weights[c].tolist()))
    k = next((k for k, total in enumerate(totals) if u[row] < total), len(totals) - 1)
    expected = prior.mean[c, k].tolist()
    scale_tril = prior.scale_tril[c, k].tolist()
    for i in range(len(expected)):
        for j in range(i + 1):
            expected[i] += scale_tril[i][j] * numbers[j]
    assert z[row].tolist() == expected


@given(shapes, st.integers(1, 70), st.integers(0, 999))
def test_a_row_is_the_same_bytes_alone_and_at_any_place_of_any_batch(
    shape: tuple[int, int, int, int], count: int, seed: int
) -> None:
    prior = some_prior(*shape)
    noise = np.random.default_rng(seed)
    epsilon, u, label = noise.normal(size=(count, shape[2])), noise.random(count), noise.integers(0, shape[0], count)
    z = prior.place(epsilon, u, label)
    order = noise.permutation(count)[: 1 + seed % count]
    assert prior.place(epsilon[order], u[order], label[order]).tobytes() == z[order].tobytes()
    row = slice(seed % count, seed % count + 1)
    assert prior.place(epsilon[row], u[row], label[row]).tobytes() == z[row].tobytes()


@pytest.mark.parametrize("latent", [1, 2, 31, 32, 33, 128])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 16, 63, 64, 256])
def test_no_size_of_a_batch_shows_in_its_rows(count: int, latent: int) -> None:
    """Sizes at which vector instructions and blocks of a matrix product would begin or end."""
    prior = some_prior(10, 5, latent, 0)
    noise = np.random.default_rng(1)
    epsilon, u, label = noise.normal(size=(256, latent)), noise.random(256), np.arange(256) % 10
    whole = prior.place(epsilon, u, label)
    for start in (0, 256 - count):
        part = slice(start, start + count)
        assert prior.place(epsilon[part], u[part], label[part]).tobytes() == whole[part].tobytes()
    strided = np.asfortranarray(epsilon)[:count]
    assert prior.place(strided, u[:count], label[:count]).tobytes() == whole[:count].tobytes()


def components_of(weights: list[float], *u: float) -> list[float]:
    """Which component each u takes: its mean is its number, and it has no extent."""
    count = len(weights)
    prior = Prior(np.array([weights]), np.arange(float(count)).reshape(1, count, 1), np.zeros((1, count, 1, 1)))
    return prior.place(np.ones((len(u), 1)), np.array(u), None)[:, 0].tolist()


def test_the_component_is_the_first_whose_cumulated_weight_exceeds_u() -> None:
    assert components_of([0.25, 0.5, 0.25], 2**-53, 0.2499, 0.25, 0.7499, 0.75, LARGEST) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("weights", "first", "last"),
    [
        ([0.0, 1.0], 1, 1),
        ([1.0, 0.0], 0, 0),
        ([0.0, 0.5, 0.0, 0.5, 0.0, 0.0], 1, 3),
        ([0.1] * 10 + [0.0], 0, 9),  # their sum is 0.9999999999999999: LARGEST lies above it
        ([1 - 1e-10, 0.0], 0, 0),
    ],
)
def test_a_component_of_weight_0_is_never_chosen(weights: list[float], first: int, last: int) -> None:
    assert components_of(weights, 2**-53, LARGEST) == [first, last]
    assert {weights[int(k)] > 0 for k in components_of(weights, *np.linspace(2**-53, LARGEST, 1001))} == {True}


def test_components_are_chosen_by_their_weight_and_class() -> None:
    prior = Prior(np.array([[0.3, 0.7], [1, 0]]), np.array([[[0.0], [1.0]], [[2.0], [9.0]]]), np.zeros((2, 2, 1, 1)))
    u = (np.arange(1000) + 0.5) / 1000
    assert prior.place(np.ones((1000, 1)), u, np.zeros(1000, int)).sum() == 700
    assert set(prior.place(np.ones((1000, 1)), u, np.ones(1000, int)).ravel()) == {2.0}


def test_a_label_is_needed_where_there_are_classes_and_must_be_one() -> None:
    prior = some_prior(3, 2, 4, 0)
    epsilon, u = np.zeros((2, 4)), np.full(2, 0.5)
    with pytest.raises(ValueError, match="no label to a prior of 3 classes"):
        prior.place(epsilon, u, None)
    for label in ([0, 3], [-1, 0]):
        with pytest.raises(ValueError, match="none of 3 classes"):
            prior.place(epsilon, u, np.array(label))
    assert prior.place(epsilon[:0], u[:0], np.zeros(0, int)).shape == (0, 4)


@pytest.mark.parametrize("rows", [slice(0, 1000), slice(0, 1000, 10), slice(7, 1000, 10), slice(300, 400)])
def test_a_probe_is_spread_over_the_components_by_their_weight(rows: slice) -> None:
    prior = Prior(np.array([[0.25, 0.75, 0]]), np.array([[[0.0], [1.0], [np.nan]]]), np.zeros((1, 3, 1, 1)))
    z = prior.spread(np.ones((1000, 1), np.float32), None)
    assert z.dtype == np.float32
    assert z[rows].mean() == pytest.approx(0.75, abs=0.03)
    assert np.array_equal(z, prior.spread(np.ones((1000, 1), np.float32), np.zeros(1000, int)))


# fitting


def clusters(count: int, classes: int, latent: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """float32 [count, latent] in two far clusters of weights .3 and .7 for each class, labels int64 [count]."""
    noise = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    cluster = (np.arange(count) // classes % 10 >= 3) * 1
    centre = 20 * np.random.default_rng(5).normal(size=(classes, 2, latent))
    return (centre[labels, cluster] + noise.normal(size=(count, latent))).astype(np.float32), labels


def test_a_mixture_is_found_again() -> None:
    z, labels = clusters(4000, 2, 5)
    prior = Prior.fit(z, labels, 2, 2, 0)
    for label in (0, 1):
        near = z[labels == label]
        order = np.argsort(prior.weights[label])
        np.testing.assert_allclose(prior.weights[label, order], [0.3, 0.7], atol=1e-6)
        for k in order:
            distance = np.abs(near - prior.mean[label, k]).max(axis=1)
            cluster = near[distance < 15]
            np.testing.assert_allclose(prior.mean[label, k], cluster.mean(0), atol=1e-4)
            covariance = prior.scale_tril[label, k] @ prior.scale_tril[label, k].T
            np.testing.assert_allclose(covariance, np.cov(cluster.T, bias=True), atol=1e-2)


def test_without_classes_there_is_one_mixture_whatever_the_labels() -> None:
    z, labels = clusters(600, 3, 4)
    prior = Prior.fit(z, None, 0, 6, 0)
    assert (prior.classes, prior.weights.shape, prior.mean.shape, prior.latent) == (1, (1, 6), (1, 6, 4), 4)
    assert prior.scale_tril.shape == (1, 6, 4, 4)
    assert same(prior, Prior.fit(z, labels, 0, 6, 0))


def test_what_is_drawn_has_the_moments_of_what_was_fitted() -> None:
    noise = np.random.default_rng(0)
    curved = np.tanh(noise.normal(size=(5000, 2)) @ noise.normal(size=(2, 8)) * 2) + 0.1 * noise.normal(size=(5000, 8))
    drawn = draw(Prior.fit(curved, None, 0, 5, 0), 20000)
    np.testing.assert_allclose(drawn.mean(0), curved.mean(0), atol=0.05)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(curved.T), atol=0.05)


def test_the_same_samples_and_seed_give_the_same_prior() -> None:
    z, labels = clusters(300, 3, 4)
    noise = z + np.random.default_rng(0).normal(size=z.shape) * 20  # no clusters: where it ends hangs on the start
    first = Prior.fit(noise, labels, 3, 4, 2**63 - 1)
    np.random.seed(7)
    assert same(first, Prior.fit(noise, labels, 3, 4, 2**63 - 1))
    assert not same(first, Prior.fit(noise, labels, 3, 4, 1))


def test_the_number_of_threads_does_not_show_in_a_prior() -> None:
    z = np.random.default_rng(0).normal(size=(3000, 32))
    with threadpool_limits(2):
        first = Prior.fit(z, None, 0, 1, 0)
    with threadpool_limits(1):
        assert same(first, Prior.fit(z, None, 0, 1, 0))


def test_fitting_leaves_its_input_and_the_global_random_state_alone() -> None:
    z, labels = clusters(100, 2, 3)
    before = z.copy()
    np.random.seed(7)
    expected = np.random.random()
    np.random.seed(7)
    Prior.fit(z, labels, 2, 2, 0)
    assert np.random.random() == expected
    assert np.array_equal(z, before)


LATENT = 6


@pytest.mark.parametrize(
    ("count", "components"),
    [(1, 1), (2, 1), (LATENT + 1, 1), (LATENT + 2, 1), (4 * LATENT - 1, 1), (4 * LATENT, 2), (10 * LATENT, 4)],
)
def test_a_class_of_few_points_gets_fewer_components(count: int, components: int) -> None:
    many, _ = clusters(400, 1, LATENT)
    z = np.concatenate([many, 5 + many[:count]])
    labels = np.repeat([0, 1], [400, count])
    prior = Prior.fit(z, labels, 2, 4, 0)
    assert (prior.weights > 0).sum(axis=1).tolist() == [4, components]
    assert prior.weights.shape == (2, 4)
    drawn = draw(prior, 2000, 1)
    assert np.isfinite(drawn).all()
    assert np.abs(drawn.mean(0) - z[400:].mean(0)).max() < 5
    if count < LATENT + 2:
        assert np.array_equal(prior.scale_tril[1, 0], np.diag(np.diagonal(prior.scale_tril[1, 0])))
        assert (np.diagonal(prior.scale_tril[1, 0]) > 0).all()


def test_a_single_point_is_its_class_s_mean_with_a_little_variance() -> None:
    z, labels = clusters(201, 1, 4)
    labels[200] = 1
    drawn = draw(Prior.fit(z, labels, 2, 3, 0), 2000, 1)
    spread = z.std(0)
    np.testing.assert_allclose(drawn.mean(0), z[200], atol=0.02 * spread.max())
    np.testing.assert_allclose(drawn.std(0), 0.1 * spread, rtol=0.1)


def test_a_class_without_points_takes_the_overall_mixture() -> None:
    z, labels = clusters(300, 2, 4)
    prior, overall = Prior.fit(z, labels, 3, 2, 0), Prior.fit(z, None, 0, 2, 0)
    for name, array in prior.state().items():
        assert np.array_equal(array[2], overall.state()[name][0])


@pytest.mark.parametrize("constant", [0.0, 1e-9, 1.0, 1e6])
def test_collapsed_dimensions_are_no_hindrance(constant: float) -> None:
    noise = np.random.default_rng(0)
    z = noise.normal(size=(500, 9)).astype(np.float32)
    z[:, 3:6] = constant
    z[:, 6:] *= np.float32(1e-6)
    prior = Prior.fit(z, np.arange(500) % 2, 2, 3, 0)
    drawn = draw(prior, 4000, 1)
    np.testing.assert_allclose(drawn[:, 3:6], constant, atol=0.01)
    np.testing.assert_allclose(drawn[:, :3].std(0), 1, atol=0.2)
    assert np.abs(drawn[:, 6:]).max() < 0.02


@pytest.mark.parametrize("value", [0.0, 3.5, -1e30])
def test_points_that_are_all_the_same_are_fitted_without_a_word(value: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior = Prior.fit(np.full((200, 3), value, np.float32), np.arange(200) % 3, 3, 4, 0)
    np.testing.assert_allclose(draw(prior, 100, 2), np.float32(value), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(
    ("z", "labels", "classes", "components", "complaint"),
    [
        (np.array([[0.0, np.nan]] * 9), None, 0, 1, "finite"),
        (np.array([[0.0, np.inf]] * 9), None, 0, 1, "finite"),
        (np.array([[0.0, 1e39]] * 9), None, 0, 1, "finite"),  # no float32
        (np.zeros((0, 2)), None, 0, 1, "finite"),
        (np.zeros(9), None, 0, 1, "table"),
        (np.zeros((9, 2)), None, 0, 0, "components"),
        (np.zeros((9, 2)), None, 3, 1, "labels"),
        (np.zeros((9, 2)), np.zeros(8, int), 3, 1, "labels"),
        (np.zeros((9, 2)), np.full(9, 3), 3, 1, "labels"),
        (np.zeros((9, 2)), np.full(9, -1), 3, 1, "labels"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    z: np.ndarray, labels: np.ndarray | None, classes: int, components: int, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        Prior.fit(z, labels, classes, components, 0)


# keeping


def test_a_prior_comes_back_as_it_went(tmp_path: Path) -> None:
    prior = some_prior(3, 2, 5, 0)
    prior.save(tmp_path / "prior.npz")
    assert same(Prior.load(tmp_path / "prior.npz"), prior)
    assert list(prior.state()) == ["weights", "mean", "scale_tril"]
    assert same(Prior.from_state(prior.state()), prior)
    tensors: dict[str, Any] = {name: torch.from_numpy(array) for name, array in prior.state().items()}
    assert same(Prior.from_state(tensors), prior)


def test_the_same_prior_gives_the_same_bytes(tmp_path: Path) -> None:
    prior = some_prior(3, 2, 5, 0)
    prior.save(tmp_path / "one.npz")
    other = Prior(*(np.asfortranarray(array).astype(">f8") for array in prior.state().values()))
    Prior.from_state(other.state()).save(tmp_path / "other.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.npz") as archive:
        assert archive.namelist() == ["weights.npy", "mean.npy", "scale_tril.npy"]
        assert {(entry.date_time, entry.compress_type) for entry in archive.infolist()} == {((1980, 1, 1, 0, 0, 0), 0)}
    with np.load(tmp_path / "one.npz") as arrays:  # by anybody
        assert {array.dtype.str for array in arrays.values()} == {"<f8"}


def changed(name: str, change: Any) -> dict[str, np.ndarray]:
    state = {key: array.copy() for key, array in some_prior(3, 2, 4, 0).state().items()}
    state[name] = change(state[name])
    return state


def put(value: float, *place: int) -> Any:
    def change(array: np.ndarray) -> np.ndarray:
        array[place] = value
        return array

    return change


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"weights": np.ones((1, 1))},
        changed("weights", lambda array: array[:2]),
        changed("weights", lambda array: array[0]),
        changed("weights", put(-0.5, 0, 0)),
        changed("weights", put(0.0, 0, 0)),
        changed("weights", lambda array: 0 * array),
        changed("mean", lambda array: array[:, :, :3]),
        changed("mean", lambda array: array[:, :1]),
        changed("mean", lambda array: array.astype(complex)),
        changed("mean", lambda array: array.astype(int)),
        changed("mean", lambda array: array.astype(object)),
        changed("mean", put(np.nan, 0, 0, 0)),
        changed("mean", put(-np.inf, 0, 0, 0)),
        changed("scale_tril", put(np.inf, 0, 0, 0, 0)),
        changed("scale_tril", put(1e-300, 0, 0, 0, 1)),
        changed("scale_tril", put(-1.0, 0, 0, 0, 0)),
        changed("scale_tril", lambda array: array[..., 0]),
        {name: np.zeros(shape) for name, shape in (("weights", (0, 2)), ("mean", (0, 2, 3)))},
        {name: array[:0] for name, array in some_prior(1, 1, 1, 0).state().items()},
    ],
)
def test_a_state_that_is_no_mixture_is_refused(state: dict[str, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Prior.from_state(state)
    np.savez(tmp_path / "prior.npz", allow_pickle=True, **state)
    with pytest.raises(ValueError, match=r"prior\.npz is no prior"):
        Prior.load(tmp_path / "prior.npz")


def test_a_damaged_file_is_refused_or_harmless(tmp_path: Path) -> None:
    """Whatever byte changes: the file is refused, or only its clothing changed (a date, say) and it reads the same."""
    path = tmp_path / "prior.npz"
    prior = some_prior(1, 2, 2, 0)
    prior.save(path)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert same(Prior.load(path), prior)
        except ValueError:
            refused += 1
    assert refused > len(whole) / 2
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="no prior"):
            Prior.load(path)


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("the pickle was opened",)


def test_what_is_no_archive_of_arrays_is_refused_and_no_pickle_opened(tmp_path: Path) -> None:
    path = tmp_path / "prior.npz"
    with pytest.raises(ValueError, match="is no prior"):
        Prior.load(path)
    array = io.BytesIO()
    np.save(array, np.ones(3))
    for content in (b"", b"PK", b"weights", array.getvalue()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no prior"):
            Prior.load(path)
    state = some_prior(1, 1, 1, 0).state()
    np.savez(path, allow_pickle=True, **(state | {"mean": np.array([[[Trap()]]], object)}))
    with pytest.raises(ValueError, match="is no prior"):
        Prior.load(path)


def test_drawing_and_reading_load_neither_torch_nor_scikit_learn(tmp_path: Path) -> None:
    some_prior(1, 1, 2, 0).save(tmp_path / "prior.npz")
    code = (
        "import sys, pathlib, numpy as np; from training.prior import Prior\n"
        f"prior = Prior.load(pathlib.Path({str(tmp_path / 'prior.npz')!r}))\n"
        "prior.place(np.ones((3, 2)), np.full(3, 0.5), None)\n"
        "print(sorted({'torch', 'sklearn', 'scipy', 'joblib', 'threadpoolctl'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
