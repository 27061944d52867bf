"""Posterior samples of an encoder in, a Gaussian mixture out; epsilon and a uniform in, latents out.

A decoder learns the latents that its encoder gives, not N(0, I): their sum over the data, the aggregated posterior, is
fitted after training and drawn from instead (ex-post density estimation, Ghosh et al. 2020). No torch here, and
scikit-learn only to fit: the server draws from a prior (docs/image-identity.md).
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from training import arrays

POINTS_PER_DIMENSION = 2  # and component, at least: a covariance of fewer points follows its sample, not its class
SHRINKAGE = 0.01  # of the overall variance, added to that of a class with hardly a point
REGULARISATION = 1e-6  # of the mean variance, on each diagonal: a collapsed dimension stays invertible
SMALLEST_VARIANCE = 1e-12  # where nothing varies
TOLERANCE = 1e-9  # of a sum of weights from 1
GOLDEN = (5**0.5 - 1) / 2  # 1 / φ, whose multiples fill (0, 1) most evenly


@dataclass(frozen=True, eq=False)
class Prior:
    """A mixture of Gaussians for each class: z = mean + scale_tril ε under component k with the chance weights[k].

    `weights` float64 [C, K], rows sum to 1; `mean` float64 [C, K, L]; `scale_tril` float64 [C, K, L, L], lower
    triangular. C = 1 where there are no classes. A component of weight 0 fills up a class that has fewer.
    """

    weights: np.ndarray
    mean: np.ndarray
    scale_tril: np.ndarray

    @property
    def classes(self) -> int:
        """Rows of the mixture; 1 also where there are no classes."""
        return self.weights.shape[0]

    @property
    def latent(self) -> int:
        return self.mean.shape[2]

    @classmethod
    def fit(cls, z: np.ndarray, labels: np.ndarray | None, classes: int, components: int, seed: int) -> "Prior":
        """Fit `components` Gaussians to each class: z float [N, L] samples of posteriors, labels int [N] or None.

        `classes` 0: one mixture, whatever the labels. A class gets a component for each 2 L of its points at most, one
        with a diagonal covariance below L + 2 points, and the overall mixture if it has none. The same on any number
        of threads. Raises ValueError for a z that is empty or not finite, and for labels outside the classes.
        """
        z = np.asarray(z, np.float64)
        if z.ndim != 2 or not z.size or not np.abs(z).max() <= np.finfo(np.float32).max:
            raise ValueError("the posterior samples are not a table of finite numbers")
        if components < 1:
            raise ValueError(f"{components} components, not 1 or more")
        overall = z.var(0)
        if not classes:
            return cls._stacked([_mixture(z, overall, components, seed)], components)
        if labels is None or np.shape(labels) != (len(z),) or labels.min() < 0 or labels.max() >= classes:
            raise ValueError(f"the labels are not {len(z)} of {classes} classes")
        groups = [z[labels == label] for label in range(classes)]
        return cls._stacked(
            [_mixture(group if len(group) else z, overall, components, seed) for group in groups], components
        )

    @classmethod
    def _stacked(cls, mixtures: list[tuple[np.ndarray, np.ndarray, np.ndarray]], components: int) -> "Prior":
        padded = [
            [np.concatenate([part, np.zeros((components - len(part), *part.shape[1:]))]) for part in mixture]
            for mixture in mixtures
        ]
        weights, mean, scale_tril = (np.stack(parts) for parts in zip(*padded, strict=True))
        return cls.from_state({"weights": weights, "mean": mean, "scale_tril": scale_tril})

    def place(self, epsilon: np.ndarray, u: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        """Epsilon float64 [N, L], u float64 [N] in (0, 1), label int [N] or None -> z float64 [N, L].

        The component is the first whose cumulated weight exceeds u. Each number of z is summed by itself from left to
        right, the mean first, in float64: no product of matrices, whose order of sums may change with N. So a row is
        the same bit for bit in any batch. Raises ValueError where the label is missing or no class.
        """
        if label is None:
            if self.classes > 1:
                raise ValueError(f"no label to a prior of {self.classes} classes")
            label = np.zeros(len(u), np.int64)
        elif len(label) and not 0 <= label.min() <= label.max() < self.classes:
            raise ValueError(f"a label is none of {self.classes} classes")
        component = self._component(u, label)
        index = label * self.weights.shape[1] + component
        z = self.mean.reshape(-1, self.latent)[index]
        for column, scales in enumerate(self._columns):
            z[:, column:] += scales.take(index, axis=0)[:, column:] * epsilon[:, column, None]
        return z

    @cached_property
    def _columns(self) -> np.ndarray:
        """scale_tril as [L, C K, L], column first: a batch takes one column of each row's component at a time.

        All of them at once would be L² numbers for each image.
        """
        return np.ascontiguousarray(self.scale_tril.reshape(-1, self.latent, self.latent).transpose(2, 0, 1))

    def spread(self, epsilon: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        """Latents of a fixed probe: epsilon [N, L], label [N] or None -> z float32 [N, L], the components in turn.

        Row i takes the component at (½ + i / φ) mod 1: each gets its share, in any rows of a class.
        """
        u = (0.5 + np.arange(len(epsilon)) * GOLDEN) % 1
        return self.place(epsilon, u, label).astype(np.float32)

    def _component(self, u: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The smallest k with u < weights[0] + ... + weights[k]; where rounding left none, the last of a weight > 0."""
        components = self.weights.shape[1]
        last = components - 1 - np.argmax(self.weights[:, ::-1] > 0, axis=1)
        passed = (u[:, None] >= np.cumsum(self.weights, axis=1)[label]).sum(axis=1)
        return np.minimum(passed, last[label])

    def state(self) -> dict[str, np.ndarray]:
        """The three arrays by name, as a checkpoint and prior.npz keep them."""
        return {"weights": self.weights, "mean": self.mean, "scale_tril": self.scale_tril}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> "Prior":
        """The inverse of `state`. Raises ValueError where an array is missing, misshapen, not finite or no mixture."""
        try:
            weights, mean, scale_tril = (_floats(state[name]) for name in ("weights", "mean", "scale_tril"))
        except (KeyError, TypeError) as error:
            raise ValueError(f"a prior without its arrays ({error})") from error
        shape = (*weights.shape, *mean.shape[2:])
        if len(shape) != 3 or mean.shape != shape or scale_tril.shape != (*shape, shape[-1]) or not scale_tril.size:
            raise ValueError(f"shapes {weights.shape}, {mean.shape}, {scale_tril.shape} are no mixture's")
        if not all(np.isfinite(array).all() for array in (weights, mean, scale_tril)):
            raise ValueError("a prior that is not finite")
        if (weights < 0).any() or (np.abs(weights.sum(axis=1) - 1) > TOLERANCE).any():
            raise ValueError("weights that are negative or do not sum to 1")
        if np.triu(scale_tril, 1).any() or (np.diagonal(scale_tril, axis1=2, axis2=3) < 0).any():
            raise ValueError("a scale_tril that is not lower triangular with a diagonal from 0 on")
        return cls(weights, mean, scale_tril)

    def save(self, path: Path) -> None:
        """Write prior.npz. The same prior gives the same bytes: uncompressed, and without the time."""
        arrays.save(path, self.state())

    @classmethod
    def load(cls, path: Path) -> "Prior":
        """Read prior.npz. Raises ValueError where it cannot be read, or is no prior."""
        try:
            return cls.from_state(arrays.load(path))
        except ValueError as error:
            raise ValueError(f"{path.name} is no prior ({error})") from error


def _floats(values: np.ndarray) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind != "f":
        raise TypeError(f"{array.dtype}, not float64")
    return np.ascontiguousarray(array, np.float64)


def _mixture(
    z: np.ndarray, overall: np.ndarray, components: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [k], means [k, L] and scale_tril [k, L, L] of one class's points, 1 ≤ k ≤ components."""
    count, latent = z.shape
    if count < latent + 2:
        variance = z.var(0) + SHRINKAGE * overall + SMALLEST_VARIANCE
        return np.ones(1), z.mean(0)[None], np.diag(np.sqrt(variance))[None]

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    mixture: Any = GaussianMixture(
        max(1, min(components, count // (POINTS_PER_DIMENSION * latent))),
        reg_covar=REGULARISATION * float(z.var(0).mean()) + SMALLEST_VARIANCE,
        random_state=seed % 2**32,
    )
    with warnings.catch_warnings(), threadpool_limits(1):  # sums over threads differ with their number
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(z)
    weights = mixture.weights_ / mixture.weights_.sum()
    return weights, mixture.means_, np.linalg.cholesky(mixture.covariances_)
