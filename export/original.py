"""A model in, the fixed pictures of it out that engines are held against: made once for all of them."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from export.engines import NonFinite
from export.invariance import GateError, probe
from training.errors import EvaluationError
from training.evaluation.evaluate import labels_for, samples_for
from training.evaluation.reference import Reference
from training.evaluation.sight import Sees, Sight
from training.evaluation.subject import Model
from training.latents import draw

LATENTS = 1_024  # fixed ones of the parity gate, over all classes
EDGES = (0.0, 6.0, -6.0)  # σ, in all coordinates at once: the middle, and further out than any seed
EDGE_CLASSES = 64  # that edges are asked of, at most
SAMPLES = 2_000  # pictures of the drift gate, at most: of the same seeds on both sides, so few tell much


@dataclass(frozen=True)
class Original:
    """What engines are held against: its `name` ("torch", or an engine's artifact), and what the bundle judges by.

    It is asked once, however many engines are held against it. Its properties raise GateError where its own pictures
    are not finite.
    """

    name: str
    model: Model
    judge: Sees | None
    reference: Reference | None

    @cached_property
    def fixed(self) -> "Drawn":
        """What parity goes by: the probe, and then the edges of each class."""
        model = self.model
        z, label = probe(LATENTS, model.latent, model.classes)
        classes = min(model.classes, EDGE_CLASSES)
        edges = np.repeat(np.array(EDGES, np.float32), max(1, classes))
        z = np.concatenate([z, edges[:, None].repeat(model.latent, axis=1)])
        if label is not None:
            label = np.concatenate([label, np.tile(np.arange(classes, dtype=np.int64), len(EDGES))])
        if model.prior is not None:
            z = model.prior.spread(z, label)
        return self._drawn(z, label)

    @cached_property
    def seeds(self) -> "Drawn":
        """What drift goes by: pictures of the first seeds, of the reference's classes in turn."""
        model, reference = self.model, self.reference
        assert reference is not None
        count = min(SAMPLES, samples_for(len(reference.real)))
        label = labels_for(reference, count) if model.classes else None
        return self._drawn(*draw(0, count, model.latent, model.classes, label, prior=model.prior))

    @cached_property
    def sight(self) -> Sight:
        """What the judge sees in the pictures of `seeds`."""
        assert self.judge is not None
        return Sight.of(self.judge, self.seeds.images, self.seeds.label)

    def _drawn(self, z: np.ndarray, label: np.ndarray | None) -> "Drawn":
        try:
            return Drawn(z, label, self.model.of_latents(z, label))
        except (EvaluationError, NonFinite) as error:
            raise GateError(f"the model itself fails, as {self.name} runs it: {error.what}", error.mend) from error


class Drawn(NamedTuple):
    """z float32 [N, latent], label int64 [N] or None, images uint8 [N, H, W, C]."""

    z: np.ndarray
    label: np.ndarray | None
    images: np.ndarray
