"""Images in, logits and features out: the small classifier, trained on the same data, that evaluation looks through.

Its recipe is fixed (version 1) so that figures stay comparable; reports of different judges are never ranked together.
Images without classes have one too: it learns by how many quarter turns an image was turned (Gidaris et al. 2018).
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.checkpoint import load, save
from training.data import Dataset, Images
from training.errors import RunError
from training.evaluation.sight import check
from training.pixels import to_unit

RECIPE = 1
FEATURES = 128
BATCH = 128
PEAK_RATE = 4e-3
SEEN = 120_000  # images in 2 epochs of a 60k set; smaller sets get at most 10 epochs
LESSONS = 60_000  # images of a larger set that a judge is shown, the first of its permutation
TURNS = 4  # quarter turns, the classes of images that have none

Observe = Callable[[float], None]


class Judge(nn.Module):
    """image float32 [N, C, H, W] in [-1, 1], H 28, 32 or 64 -> logits [N, classes], features [N, 128]."""

    def __init__(self, size: int, channels: int, classes: int) -> None:
        super().__init__()
        self.size, self.channels, self.classes = size, channels, classes
        widths = [16, 16, 32, 64] if size == 64 else [16, 32, 64]
        blocks: list[nn.Module] = []
        for index, width in enumerate(widths):
            last = index == len(widths) - 1
            blocks += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            blocks += [nn.MaxPool2d(3, stride=2) if last else nn.MaxPool2d(2)]
            channels = width
        self.features = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64 * 3 * 3, FEATURES), nn.ReLU(inplace=True))
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(image)
        return self.head(features), features

    @torch.inference_mode()
    def look(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """images uint8 [N, H, W, C] -> logits float32 [N, classes], features float32 [N, 128].

        Raises EvaluationError for images of another shape.
        """
        check(images, self.size, self.channels)
        self.eval()
        parts = [self(to_unit(torch.from_numpy(part))) for part in np.array_split(images, len(images) // 512 + 1)]
        logits, features = (torch.cat(side).numpy() for side in zip(*parts, strict=True))
        return logits, features

    def save(self, path: Path) -> None:
        """Write judge.pt."""
        shape = {"size": self.size, "channels": self.channels, "classes": self.classes}
        save(path, {"recipe": RECIPE, "shape": shape, "weights": self.state_dict(), "sha256": self.sha256()})

    @classmethod
    def load(cls, path: Path) -> "Judge":
        """Read judge.pt. Raises RunError where it is missing or damaged."""
        state = load(path)
        try:
            with torch.random.fork_rng():  # nor may one that is read
                judge = cls(**state["shape"])
            judge.load_state_dict(state["weights"])
            if judge.sha256() != state["sha256"]:
                raise ValueError("its weights are others than its hash says")
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"{path} is no judge of this limner", "Restore it, or train again.") from error
        return judge.eval()

    def sha256(self) -> str:
        """Hash of the floating-point weights: float32, little endian, in state-dict order."""
        digest = hashlib.sha256()
        for weight in self.state_dict().values():
            if weight.is_floating_point():
                digest.update(weight.detach().cpu().numpy().astype("<f4").tobytes())
        return digest.hexdigest()


def default_cache() -> Path:
    """`~/.cache/limner/judges`; a temporary folder for a user without a home, as in some containers."""
    try:
        home = Path.home()
    except RuntimeError:
        home = Path(tempfile.gettempdir())
    return home / ".cache" / "limner" / "judges"


def judge_for(dataset: Dataset, cache: Path, observe: Observe = lambda fraction: None) -> Judge:
    """The judge of a data set: out of `cache`, or trained (8 s on MNIST-5k and two cores) and put there.

    `observe` hears the share of its training that is done, and nothing where the cache has it.
    """
    lessons = _lessons(dataset.train)
    classes = len(dataset.class_names) or TURNS
    with torch.random.fork_rng():  # a judge must not change the run that asks for it
        torch.manual_seed(RECIPE)
        return _cached(lessons, cache, observe, Judge(dataset.size, dataset.channels, classes))


def _lessons(train: Images) -> Images:
    first = train.take(slice(None, LESSONS))
    if first.labels is not None:
        return first
    turned = np.stack([np.rot90(image, number % TURNS) for number, image in enumerate(first.images)])
    return Images(turned, np.arange(len(first)) % TURNS)


def _cached(lessons: Images, cache: Path, observe: Observe, judge: Judge) -> Judge:
    path = cache / f"{digest(lessons)}-v{RECIPE}.pt"
    if path.is_file():
        try:
            cached = Judge.load(path)
            if (cached.size, cached.channels, cached.classes) == (judge.size, judge.channels, judge.classes):
                return cached
        except RunError:
            pass  # made again below
    _fit(judge, lessons, observe)
    with contextlib.suppress(OSError, RunError):  # without a place for the cache, the next run trains it again
        path.parent.mkdir(parents=True, exist_ok=True)
        judge.save(path)
    return judge


def digest(images: Images) -> str:
    """What tells one training split from another: a hash of the first 60,000 images, their labels and the shape."""
    found = hashlib.sha256(repr(images.images.shape).encode())
    found.update(np.ascontiguousarray(images.images[:LESSONS]).data)
    if images.labels is not None:
        found.update(images.labels[:LESSONS].astype("<i8").tobytes())
    return found.hexdigest()[:32]


def _fit(judge: Judge, train: Images, observe: Observe) -> None:
    images, labels = torch.from_numpy(train.images), torch.from_numpy(train.labels)
    batch = min(BATCH, len(train))
    per_epoch = max(1, len(train) // batch)
    epochs = min(10, max(2, round(SEEN / len(train))))
    optimizer = torch.optim.AdamW(judge.parameters())
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=epochs * per_epoch)
    judge.train()
    for epoch in range(epochs):
        observe(epoch / epochs)
        order = torch.randperm(len(train))
        for index in range(per_epoch):
            rows = order[index * batch : (index + 1) * batch]
            loss = F.cross_entropy(judge(to_unit(images[rows]))[0], labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
    observe(1.0)
    judge.eval()
