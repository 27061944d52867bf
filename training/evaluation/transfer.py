"""Pictures and their classes in, how well they teach a classifier to know real images out.

The classifier sees descriptors that know nothing of the judge, so that what deceives the judge does not count here.
"""

import numpy as np

from training.errors import EvaluationError

GRID = 4  # cells across a picture: 7 pixels of 28, so that a digit shifted by a pixel is much the same
ORIENTATIONS = 8
PENALTY = 10.0  # of a support vector machine's errors: as measured, 1 is worse by 0.01 and hardly sees wrong labels


def describe(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] -> float16 [N, 128 + 16 C] in [0, 1]: gradients and mean colour of 4 x 4 cells.

    The histogram of oriented gradients (Dalal & Triggs 2005) has 8 orientations, and one block of all cells: a block
    for each cell would blow up the faintest noise of an empty one. Rows and columns over a multiple of 4 are left out.
    Rounded, for the descriptors of real images are kept in a file. H, W ≥ 4.
    """
    height, width = (side // GRID for side in images.shape[1:3])
    images = images[:, : GRID * height, : GRID * width]
    count, channels = len(images), images.shape[-1]
    cells = images.reshape(count, GRID, height, GRID, width, channels)
    colours = cells.mean((2, 4), dtype=np.float32).reshape(count, GRID * GRID * channels) / 255
    return np.concatenate([_gradients(images, (height, width)), colours], axis=1).astype(np.float16)


def _gradients(images: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    from skimage.feature import hog  # an extra, and a second to import

    found = np.empty((len(images), GRID * GRID * ORIENTATIONS), np.float32)
    for row, image in zip(found, images, strict=True):
        row[:] = hog(image, ORIENTATIONS, cell, (GRID, GRID), channel_axis=-1)
    return found


def transfer_accuracy(
    descriptors: np.ndarray, classes: np.ndarray, real_descriptors: np.ndarray, real_classes: np.ndarray
) -> float:
    """Share of real images whose class is found by a classifier that learnt from pictures alone, in [0, 1].

    descriptors [N, D] and classes int [N] of pictures, real_descriptors [M, D] and real_classes int [M] of real
    images. The classification accuracy score (Ravuri & Vinyals 2019), of a support vector machine in place of a
    network: of all that were tried it told collapse, blur and wrong labels best. The same on every run; its time grows
    with the square of N, a second for 5,000 good pictures and four for bad ones.
    Raises EvaluationError for pictures of fewer than 2 classes and for no real image.
    """
    present = len(np.unique(classes))
    if present < 2:
        raise EvaluationError(
            f"transfer accuracy needs pictures of at least 2 classes, these are of {present}",
            "Take more: --samples 1000.",
        )
    if not len(real_descriptors):
        raise EvaluationError(
            "transfer accuracy needs at least 1 real image, there are 0", "Measure against another split."
        )
    from sklearn.pipeline import make_pipeline  # an extra, and seconds to import
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    # in float64: the scaler would keep float16, and round what it centres
    classifier = make_pipeline(StandardScaler(), SVC(C=PENALTY)).fit(descriptors.astype(np.float64), classes)
    return float((classifier.predict(real_descriptors.astype(np.float64)) == real_classes).mean())
