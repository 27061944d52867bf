"""The photographs inside the wheels of scikit-image and scikit-learn in, a Source of small colour patches out.

A set of colour images with classes that needs no network: what is a class is the photograph a patch was cut from.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from training.data.images import Part, Source
from training.data.splits import permutation
from training.errors import DataError

# The colour photographs of everyday things: the other files are grey, drawings, screenshots, microscopy or telescope
# pictures. motorcycle_right is the other eye of motorcycle_left: the same picture.
PHOTOS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
}
SIDE = 32
STEP = 2  # pixels between neighbouring patches
# Upright strips of each photograph, as shares of its width: test lies inside, where the things are, not at the edge. A
# patch lies in one strip whole, so that no pixel of a training patch is in a patch of test. Patches of val are others
# from the strips of train: another strip shows other things, and the best weights would be chosen for those.
TRAINED = ((0.0, 0.65), (0.75, 1.0))
STRIPS = {"train": TRAINED, "val": TRAINED, "test": ((0.65, 0.75),)}
OF_EACH = {"train": slice(4000), "val": slice(4000, 4500), "test": slice(500)}  # as many, so that classes are alike


def photo_set() -> Source:
    """Raises DataError, or ModuleNotFoundError where a package is missing."""
    photos = [_photo(*place) for place in PHOTOS.values()]
    parts = tuple(_part(photos, name) for name in STRIPS)
    return Source("photo-patches", parts, tuple(PHOTOS), "photo-patches 2", "photo-patches", size=SIDE)


def _photo(package: str, place: str) -> np.ndarray:
    spec = importlib.util.find_spec(package)  # its folder, without the second that importing it takes
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)
    path = Path(spec.origin).parent / place
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise DataError(
            f"the installed {package} has no {place}", f"Install another version: pip install -U {package}."
        ) from error


def _part(photos: list[np.ndarray], name: str) -> Part:
    corners = [_corners(photo, name) for photo in photos]
    labels = np.repeat(np.arange(len(photos)), [len(found) for found in corners])
    places = np.concatenate(corners)

    def read(rows: np.ndarray) -> Iterator[np.ndarray]:
        for row in rows:
            left, top = places[row]
            yield photos[labels[row]][top : top + SIDE, left : left + SIDE]

    return Part(len(places), labels, read)


def _corners(photo: np.ndarray, name: str) -> np.ndarray:
    """int64 [N, 2]: left and top of the patches of one photograph in the strips of train, val or test."""
    height, width = photo.shape[:2]
    lefts = [np.arange(round(start * width), round(end * width) - SIDE + 1, STEP) for start, end in STRIPS[name]]
    left, top = np.meshgrid(np.concatenate(lefts), np.arange(0, height - SIDE + 1, STEP))
    corners = np.stack([left.ravel(), top.ravel()], 1)
    return corners[permutation(len(corners))[OF_EACH[name]]]
