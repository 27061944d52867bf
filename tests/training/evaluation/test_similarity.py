"""A measure moves by what it looks at, stays by what it does not, and is what another implementation gives."""

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage import data
from skimage.feature import hog
from skimage.filters import sobel
from skimage.metrics import peak_signal_noise_ratio

from training.errors import EvaluationError
from training.evaluation.sight import Sees
from training.evaluation.similarity import (
    MEASURES,
    Measure,
    colours,
    cosine,
    edges,
    hellinger,
    judged,
    measures,
    pixels,
    shapes,
    similarities,
    textures,
)

Figures = dict[str, float]
ALIKE = {"ssim": 1, "ms_ssim": 1, "psnr": None, "colour": 0, "texture": 0, "edges": 1, "shape": 1}


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """uint8 [64, 64, 3]: the astronaut's face."""
    return np.ascontiguousarray(data.astronaut()[60:188:2, 160:288:2])


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def flat(level: int, channels: int = 3) -> np.ndarray:
    return np.full((32, 32, channels), level, np.uint8)


def changed(first: np.ndarray, second: np.ndarray, judge: Sees | None = None) -> Figures:
    """Every figure of pictures that are not equal: then each is a number."""
    return {name: value for name, value in similarities(first, second, judge).items() if value is not None}


class Averages:
    """A judge of 64x64 pictures in colour that sees the mean of each row and channel."""

    def look(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if images.shape[1:] != (64, 64, 3):
            raise EvaluationError("the judge looks at pictures of 64x64x3, these are others", "Take another.")
        features = images.mean(axis=2).reshape(len(images), -1).astype(np.float32)
        return features[:, :10], features

    def sha256(self) -> str:
        return "0" * 64


# pictures changed in one respect


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_as_near_to_itself_as_can_be(photo: np.ndarray, channels: int) -> None:
    found = similarities(photo[..., :channels], photo[..., :channels].copy())
    assert found == {name: None if value is None else pytest.approx(value) for name, value in ALIKE.items()}
    assert (found["colour"], found["texture"], found["edges"], found["shape"]) == (0, 0, 1, 1)  # not nearly


def test_a_mirrored_picture_keeps_its_colours_and_its_texture_and_nothing_else(photo: np.ndarray) -> None:
    found = changed(photo, photo[:, ::-1])
    assert found["colour"] == 0
    assert found["texture"] == pytest.approx(0, abs=0.01)
    assert found["ssim"] < 0.5
    assert found["edges"] < 0.9
    assert found["shape"] < 0.9


def test_a_quarter_turn_keeps_colours_and_texture(photo: np.ndarray) -> None:
    found = changed(photo, np.rot90(photo))
    assert found["colour"] == 0
    assert found["texture"] == pytest.approx(0, abs=0.01)
    assert found["shape"] < 0.9


def test_other_colours_leave_texture_edges_and_shape(photo: np.ndarray) -> None:
    found = changed(photo, photo[..., ::-1])
    assert found["colour"] > 0.3
    assert found["texture"] == 0
    assert found["edges"] == 1
    assert found["shape"] == pytest.approx(1, abs=1e-3)  # which of two equal channels HOG takes depends on their order


def test_a_negative_keeps_edges_and_shape_and_loses_structure(photo: np.ndarray) -> None:
    found = changed(photo, 255 - photo)
    assert found["ssim"] < 0
    assert found["ms_ssim"] == pytest.approx(0, abs=0.05)
    assert found["edges"] == pytest.approx(1)
    assert found["shape"] == pytest.approx(1)
    assert found["colour"] > 0.3


def test_half_the_contrast_leaves_texture_edges_and_shape(photo: np.ndarray) -> None:
    faint = photo // 64 * 64  # steps that halve exactly
    found = changed(faint, faint // 2)
    assert found["texture"] == 0
    assert found["edges"] == pytest.approx(1)
    assert found["shape"] > 0.99
    assert found["psnr"] < 20
    assert found["colour"] > 0.3


def test_a_blur_takes_the_texture_first_and_the_more_the_farther(photo: np.ndarray) -> None:
    light, heavy = (changed(photo, ndimage.gaussian_filter(photo, (sigma, sigma, 0))) for sigma in (0.7, 2))
    assert light["texture"] > 0.03
    assert light["shape"] > 0.9
    for name, measure in MEASURES.items():
        apart = light[name] - heavy[name]
        assert (apart > 0) == (measure.nearer == "high"), name


def test_a_shift_by_a_pixel_troubles_pixels_more_than_shape(photo: np.ndarray) -> None:
    found = changed(photo, np.roll(photo, 1, axis=1))
    assert found["shape"] > found["edges"] > found["ssim"]
    assert found["colour"] == 0


def test_of_two_noises_only_colour_and_texture_are_alike() -> None:
    found = changed(noise(64, 64, 1, seed=1), noise(64, 64, 1, seed=2))
    assert found["texture"] < 0.05
    assert found["colour"] < 0.1
    assert abs(found["ssim"]) < 0.1
    assert found["psnr"] == pytest.approx(10 * math.log10(6), abs=0.2)  # E (X - Y)² = 255² / 6


# known answers


def test_black_and_white_are_as_far_as_can_be() -> None:
    found = changed(flat(0), flat(255))
    assert found["psnr"] == 0
    assert found["colour"] == 1
    assert found["ssim"] == pytest.approx(0, abs=1e-3)


def test_flat_pictures_are_alike_in_edges_and_shape_and_unlike_any_other() -> None:
    both, one = changed(flat(0), flat(200)), changed(flat(90), noise(32, 32, 3))
    assert (both["texture"], both["edges"], both["shape"]) == (0, 1, 1)
    assert (one["edges"], one["shape"]) == (0, 0)
    back = changed(noise(32, 32, 3), flat(90))
    assert (back["edges"], back["shape"]) == (0, 0)


@pytest.mark.parametrize("level", [0, 7, 100, 255])
def test_every_flat_picture_has_the_same_texture(level: int) -> None:
    np.testing.assert_array_equal(textures(flat(level)[None]), textures(flat(30)[None]))


def test_colours_are_shares_of_joint_bins() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:4] = (255, 0, 0)  # a quarter red
    image[4:8] = (31, 32, 0)  # the edge between two bins
    shares = colours(image[None])[0].reshape(8, 8, 8)  # blue, green, red
    assert (shares[0, 0, 7], shares[0, 1, 0], shares[0, 0, 0]) == (0.25, 0.25, 0.5)
    grey = colours(np.array([[[0], [7], [8], [255]]], np.uint8)[None])[0]
    assert grey.shape == (32,)
    assert (grey[0], grey[1], grey[31]) == (0.5, 0.25, 0.25)


def test_hellinger_and_cosine_by_hand() -> None:
    shares = np.array([[0.5, 0.5, 0], [1, 0, 0], [0, 0, 1]])
    assert hellinger(shares[:1], shares[1:2]) == pytest.approx(math.sqrt(1 - math.sqrt(0.5)))
    assert hellinger(shares[:1], shares[2:]) == pytest.approx(1)
    units = np.array([[1.0, 0], [0.6, 0.8], [0, 1], [-1, 0], [0, 0]])
    assert cosine(units[[0] * 5], units).tolist() == pytest.approx([1, 0.6, 0, -1, 0])
    assert cosine(units[4:], units[4:]) == 1


# oracles


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_is_scikit_images(photo: np.ndarray, channels: int) -> None:
    first, second = photo[..., :channels], noise(64, 64, channels)
    expected = peak_signal_noise_ratio(first, second, data_range=255)
    assert similarities(first, second)["psnr"] == pytest.approx(expected)


def test_edges_are_scikit_images_sobel(photo: np.ndarray) -> None:
    expected = np.sqrt(sum(sobel(photo[..., channel].astype(float), mode="reflect") ** 2 for channel in range(3)))
    np.testing.assert_allclose(edges(photo[None])[0], (expected / np.linalg.norm(expected)).ravel(), atol=1e-12)


def test_colour_is_numpys_histogram(photo: np.ndarray) -> None:
    expected, _ = np.histogramdd(photo.reshape(-1, 3)[:, ::-1], bins=8, range=[(0, 256)] * 3)
    np.testing.assert_allclose(colours(photo[None])[0], expected.ravel() / photo[..., 0].size)


def test_texture_is_a_count_of_circular_patterns() -> None:
    image = noise(12, 12, 1)
    levels = image[..., 0].astype(float)
    rows, columns = np.mgrid[1:11, 1:11]
    angles = np.arange(8) * np.pi / 4
    around = [
        ndimage.map_coordinates(levels, [rows - np.sin(angle), columns + np.cos(angle)], order=1) for angle in angles
    ]
    bits = np.stack(around) >= levels[1:11, 1:11] - 1e-3
    changes = (bits != np.roll(bits, 1, axis=0)).sum(axis=0)
    codes = np.where(changes <= 2, bits.sum(axis=0), 9)
    expected = np.bincount(codes.ravel(), minlength=10) / 100
    np.testing.assert_allclose(textures(image[None])[0], expected)


def test_shape_is_scikit_images_hog_but_for_the_votes_between_orientations(photo: np.ndarray) -> None:
    theirs = hog(photo, 9, (8, 8), (2, 2), "L2", channel_axis=-1)
    ours = shapes(photo[None])
    assert ours.shape == (1, 7 * 7 * 2 * 2 * 9)
    assert cosine(ours, theirs[None] / np.linalg.norm(theirs)).item() > 0.9


@pytest.mark.parametrize("degrees", [0, 10, 13, 45, 90, 130, 175])
def test_a_slope_votes_for_the_two_orientations_next_to_its_own(degrees: float) -> None:
    rows, columns = np.mgrid[:256, :256] - 127.5
    turn = math.radians(degrees)
    slope = 127.5 + 0.5 * (rows * math.sin(turn) + columns * math.cos(turn))
    votes = shapes(slope[None, ..., None])[0].reshape(49, 4, 9)[24].sum(axis=0)
    place = degrees / 20 - 0.5
    expected = np.zeros(9)
    expected[math.floor(place) % 9] += 1 - place % 1
    expected[(math.floor(place) + 1) % 9] += place % 1
    np.testing.assert_allclose(votes / votes.sum(), expected, atol=1e-9)


def test_what_a_file_format_leaves_in_flat_areas_is_no_shape() -> None:
    image = np.full((64, 64, 1), 20, np.uint8)
    image[24:40, 24:40] = 230
    grained = image + noise(64, 64, 1) % 3
    assert changed(image, grained)["shape"] > 0.99


# pairs, batches and judges


def test_grey_beside_colour_counts_as_colour(photo: np.ndarray) -> None:
    grey = photo[..., :1]
    assert similarities(grey, photo) == similarities(np.repeat(grey, 3, axis=2), photo)
    assert similarities(photo, grey)["colour"] == similarities(grey, photo)["colour"]
    repeated = similarities(grey, np.repeat(grey, 3, axis=2))
    assert repeated == {name: None if value is None else pytest.approx(value) for name, value in ALIKE.items()}


@pytest.mark.parametrize("name", [*MEASURES, "judge"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_among_others_is_measured_as_alone(photo: np.ndarray, name: str, channels: int) -> None:
    measure = measures(Averages())[name]
    others = np.stack([photo, noise(64, 64, 3), np.roll(photo, 3, axis=0), 255 - photo])[..., :channels]
    query = measure.describe(np.ascontiguousarray(photo[None, ..., :channels]))
    together = measure(query, measure.describe(others))
    alone = [measure(query, measure.describe(other[None])).item() for other in others]
    np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", MEASURES)
def test_it_is_the_same_both_ways(photo: np.ndarray, name: str) -> None:
    other = noise(64, 64, 3)
    assert similarities(photo, other)[name] == pytest.approx(similarities(other, photo)[name])


@pytest.mark.parametrize(("height", "width"), [(11, 11), (28, 28), (11, 40), (33, 65), (200, 120)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_any_size_from_11_pixels_are_compared(height: int, width: int, channels: int) -> None:
    found = changed(noise(height, width, channels, seed=1), noise(height, width, channels, seed=2))
    assert list(found) == list(MEASURES)
    assert all(value is not None for value in found.values())


def test_a_judge_adds_the_cosine_of_what_it_sees(photo: np.ndarray) -> None:
    found = changed(photo, photo // 2 * 2, Averages())
    assert list(found) == [*MEASURES, "judge"]
    assert 0.99 < found["judge"] < 1
    assert similarities(photo, photo, Averages())["judge"] == 1


def test_a_judge_of_colour_pictures_sees_grey_ones_in_colour(photo: np.ndarray) -> None:
    grey = photo[..., :1]
    np.testing.assert_array_equal(
        judged(Averages()).describe(grey[None]), judged(Averages()).describe(np.repeat(grey, 3, axis=2)[None])
    )


def test_a_picture_that_does_not_fit_the_judge_is_refused_with_the_mend() -> None:
    with pytest.raises(EvaluationError, match=r"64x64x3.*--size"):
        similarities(flat(3), flat(4), Averages())


# refusals


def test_pictures_of_two_sizes_are_refused_by_both() -> None:
    with pytest.raises(EvaluationError, match="32x32 and 28x20"):
        similarities(flat(3), noise(20, 28, 3))


def test_pictures_under_11_pixels_are_refused() -> None:
    with pytest.raises(EvaluationError, match="11"):
        similarities(noise(10, 30, 1), noise(10, 30, 1))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.5, -0.1])
def test_a_figure_that_is_none_is_an_error_that_names_the_measure(value: float) -> None:
    broken = Measure("shape", "high", (0, 1), "", "", pixels, lambda first, second: np.array([0.5, value]))
    with pytest.raises(EvaluationError, match="shape came out as"):
        broken(np.zeros((1, 2)), np.zeros((2, 2)))


@pytest.mark.parametrize("seen", [math.nan, math.inf])
def test_a_judge_that_sees_no_number_is_an_error(photo: np.ndarray, seen: float) -> None:
    class Blind(Averages):
        def look(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            logits, features = super().look(images)
            return logits, features * np.float32(seen)

    with pytest.raises(EvaluationError, match="judge came out as nan"):
        similarities(photo, photo, Blind())


def test_rounding_stays_in_the_range() -> None:
    over = Measure("shape", "high", (0, 1), "", "", pixels, lambda first, second: np.array([1 + 1e-12, -1e-12]))
    assert over(np.zeros((1, 2)), np.zeros((2, 2))).tolist() == [1, 0]


def test_every_measure_says_what_it_is() -> None:
    for measure in measures(Averages()).values():
        assert measure.title
        assert measure.paper
        assert len(measure.looks_at) <= 34  # the table fits 80 columns
        assert measure.scale().endswith("is nearer")
    assert MEASURES["psnr"].scale() == "0 dB up, higher is nearer"
    assert MEASURES["psnr"].text(None) == "equal"
    assert MEASURES["psnr"].text(20.04) == "20.0 dB"
    assert MEASURES["colour"].scale() == "0 to 1, lower is nearer"
