"""Frames in every format, read back with other people's decoders."""

import base64
import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from server.animation import OFFERED, durations, encode, there_and_back
from server.gif import gif
from server.identity import Between, Identity
from server.images import encode as encode_image

FIRST = Identity("digits", 3, "d1ge57", "fake-cpu", 2**63 - 1, 2, 0.5)
LAST = Identity("digits", 3, "d1ge57", "fake-cpu", 8, 0, 0.5)
CLASSES = ("a", "b", "c")
SAID = {
    "model": "digits",
    "version": 3,
    "digest": "d1ge57",
    "artifact": "fake-cpu",
    "from": {"seed": "9223372036854775807", "label": 2},
    "to": {"seed": "8", "label": 0},
    "truncation": 0.5,
}


def noise(count: int, channels: int, height: int = 20, width: int = 16) -> np.ndarray:
    numbers = np.random.Generator(np.random.Philox(key=9))
    return numbers.integers(0, 256, (count, height, width, channels), np.uint8)


def body(format: str, frames: np.ndarray, **how: Any) -> bytes:
    return encode(format, frames, Between(FIRST, LAST, len(frames)), CLASSES, **how)


def shown(animation: bytes) -> tuple[np.ndarray, list[float]]:
    """Frames uint8 [n, H, W, 3] as a viewer shows them, and their milliseconds."""
    with Image.open(io.BytesIO(animation)) as moving:
        frames, times = [], []
        for place in range(getattr(moving, "n_frames", 1)):
            moving.seek(place)
            frames.append(np.asarray(moving.convert("RGB")))
            times.append(moving.info["duration"])
    return np.stack(frames), times


def enlarged(frames: np.ndarray, scale: int = 1) -> np.ndarray:
    return np.broadcast_to(frames, (*frames.shape[:3], 3)).repeat(scale, axis=1).repeat(scale, axis=2)


@given(st.integers(2, 6), st.booleans(), st.integers(1, 3))
def test_a_gif_of_greys_shows_exactly_the_frames(count: int, loop: bool, scale: int) -> None:
    frames = noise(count, 1)
    frames[0].flat[:256] = np.arange(256)  # every grey there is
    found, _ = shown(body("gif", frames, loop=loop, scale=scale))
    assert np.array_equal(found, enlarged(frames[there_and_back(count, loop)], scale))


def test_a_gif_keeps_frames_that_are_alike() -> None:
    frames = noise(4, 1)
    frames[1:] = frames[0]
    found, times = shown(body("gif", frames))
    assert (len(found), times) == (4, [80, 90, 80, 80])


def test_a_gif_of_few_colours_is_exact_and_one_of_many_is_near() -> None:
    few = noise(256, 3, 1, 1)[np.random.Generator(np.random.Philox(key=1)).integers(0, 200, (3, 16, 16)), 0, 0]
    found, _ = shown(body("gif", few))
    assert np.array_equal(found, few)
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    smooth = np.stack(np.broadcast_arrays(ramp[None, :, None], ramp[None, None], np.uint8(90)), axis=-1)
    found, _ = shown(body("gif", np.concatenate([smooth, smooth[:, ::-1]])))
    error = found.astype(int) - np.concatenate([smooth, smooth[:, ::-1]])
    assert len(np.unique(found.reshape(-1, 3), axis=0)) <= 256
    assert np.sqrt((error**2).mean()) < 8


def test_the_colours_of_large_gifs_are_chosen_from_all_their_pixels() -> None:
    frames = np.zeros((8, 64, 64, 3), np.uint8)
    frames[:, :, 32:] = (200, 10, 30)
    frames[7, 60:] = (0, 250, 0)
    found, _ = shown(body("gif", frames))
    assert np.array_equal(found, frames)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("loop", [False, True])
def test_a_webp_is_lossless_unless_a_quality_is_asked_for(channels: int, loop: bool) -> None:
    frames = noise(4, channels)
    wanted = enlarged(frames[there_and_back(4, loop)], 2)
    lossless = body("webp", frames, loop=loop, scale=2)
    found, _ = shown(lossless)
    assert np.array_equal(found, wanted)
    lossy = body("webp", frames, loop=loop, scale=2, quality=20)
    assert len(lossy) < len(lossless)
    assert shown(lossy)[0].shape == wanted.shape


@pytest.mark.parametrize("format", ["gif", "webp"])
def test_an_animation_plays_once_or_for_ever(format: str) -> None:
    frames = noise(3, 1)
    for loop in (False, True):
        with Image.open(io.BytesIO(body(format, frames, loop=loop))) as moving:
            moving.load()
            assert moving.info.get("loop") == (0 if loop else {"gif": None, "webp": 1}[format])


@pytest.mark.parametrize("format", ["gif", "webp"])
@pytest.mark.parametrize("fps", [0.1, 1, 7, 12, 29.97, 30, 50])
def test_a_frame_lasts_as_long_as_it_should_and_all_together_do(format: str, fps: float) -> None:
    frames = noise(7, 1)
    _, times = shown(body(format, frames, fps=fps))
    unit = 10 if format == "gif" else 1
    assert all(abs(time - 1000 / fps) <= unit for time in times)
    assert abs(sum(times) - 7 * 1000 / fps) <= unit


def test_the_times_of_a_long_gif_do_not_drift() -> None:
    times = durations(510, 30, "gif")
    assert abs(sum(times) - 17_000) <= 5
    assert {*times} == {30, 40}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("loop", [False, True])
def test_a_strip_is_one_row_of_the_frames(channels: int, loop: bool) -> None:
    frames = noise(4, channels)
    with Image.open(io.BytesIO(body("png", frames, loop=loop, scale=2))) as strip:
        found = np.asarray(strip.convert("RGB"))
        said = json.loads(strip.text["limner"])  # type: ignore[attr-defined]
    assert np.array_equal(found, np.concatenate([*enlarged(frames[there_and_back(4, loop)], 2)], axis=1))
    assert said == SAID | {"frames": 4}


def test_every_animation_says_what_it_lies_between() -> None:
    frames = noise(4, 1)
    with Image.open(io.BytesIO(body("gif", frames))) as moving:
        assert json.loads(moving.info["comment"]) == SAID | {"frames": 4}
    with Image.open(io.BytesIO(body("webp", frames))) as moving:
        comment = moving.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert json.loads(comment.removeprefix(b"ASCII\0\0\0")) == SAID | {"frames": 4}


@pytest.mark.parametrize("loop", [False, True])
def test_a_zip_holds_a_png_of_each_frame_and_its_ends_are_the_images_themselves(loop: bool) -> None:
    frames = noise(3, 1)
    with zipfile.ZipFile(io.BytesIO(body("zip", frames, loop=loop, scale=2))) as archive:
        assert archive.testzip() is None
        *names, index = archive.namelist()
        files = [archive.read(name) for name in names]
        said = json.loads(archive.read(index))
    assert names == [f"{place:06d}.png" for place in range(4 if loop else 3)]
    assert said["images"] == [
        {"file": name, "frame": frame} for name, frame in zip(names, there_and_back(3, loop), strict=True)
    ]
    assert (said["from"], said["to"], said["frames"]) == (
        {"seed": "9223372036854775807", "label": 2, "class": "c"},
        {"seed": "8", "label": 0, "class": "a"},
        3,
    )
    for file, frame, identity in ((files[0], frames[:1], FIRST), (files[2], frames[2:], LAST)):
        labels = np.array([identity.label])
        assert file == encode_image("png", frame, identity, labels, CLASSES, scale=2)
    with Image.open(io.BytesIO(files[1])) as between:
        assert json.loads(between.text["limner"]) == SAID | {"frame": 1, "frames": 3}  # type: ignore[attr-defined]
    assert files[3:] == files[1:2] * loop


def test_json_and_npy_hold_the_same_frames() -> None:
    frames = noise(3, 3)
    stack = np.load(io.BytesIO(body("npy", frames, loop=True)))
    assert np.array_equal(stack, frames[[0, 1, 2, 1]])
    said = json.loads(body("json", frames, loop=True))
    assert [image["frame"] for image in said["images"]] == [0, 1, 2, 1]
    for image, pixels in zip(said["images"], stack, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(image["png"]))) as picture:
            assert np.array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize("format", [*OFFERED.types])
@pytest.mark.parametrize("channels", [1, 3])
def test_equal_frames_are_equal_bytes(format: str, channels: int) -> None:
    frames = noise(5, channels)
    assert body(format, frames, loop=True) == body(format, frames.copy(), loop=True)


def test_a_long_comment_is_read_back_whole() -> None:
    text = json.dumps(["€" * 200] * 3).encode()
    assert len(text) > 2 * 255
    made = gif(noise(2, 1), [0, 1], [100, 100], text, loop=True)
    with Image.open(io.BytesIO(made)) as moving:
        assert moving.info["comment"] == text
