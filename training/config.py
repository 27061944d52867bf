"""Settings in, one frozen and validated TrainConfig out. Imports no torch.

A setting that nobody gave comes from the recipe, else from its own default; what is written to a run is resolved.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["gan", "cgan", "vae", "cvae"]
Recipe = Literal["default", "dcgan", "sn-hinge", "rpgan"]
SIZES = (28, 32, 64)

RECIPES: dict[Recipe, dict[str, Any]] = {
    "default": {},  # the winner of benchmarks/training.py
    # the textbook after Radford et al. 2016: constant rates, dropout, the weights themselves instead of their average
    "dcgan": {
        "generator_rate": 2e-4, "discriminator_rate": 2e-4, "beta1": 0.5, "batch": 64, "dropout": 0.3,
        "decay_from": 1.0, "ema_decay": 0.0,
    },
    # Miyato et al. 2018, with the betas of Zhang et al. 2019 and four times their rates
    "sn-hinge": {
        "loss": "hinge", "spectral_norm": True, "normalization": "none", "dropout": 0.0, "batch": 64,
        "generator_rate": 4e-4, "discriminator_rate": 1.6e-3, "beta1": 0.0, "beta2": 0.9,
    },
    # Huang et al. 2024 (R3GAN): relativistic pairs, a penalty on both sides, no normalisation in the discriminator
    "rpgan": {
        "loss": "relativistic", "r1": 1.0, "r2": 1.0, "normalization": "none", "dropout": 0.0, "batch": 64,
        "discriminator_rate": 1.6e-3, "beta1": 0.0, "beta2": 0.99,
    },
}  # fmt: skip
BY_KIND: dict[Kind, dict[str, int]] = {
    "gan": {"latent": 100, "components": 1},
    "cgan": {"latent": 100, "components": 1},
    "vae": {"latent": 32, "components": 20},
    "cvae": {"latent": 32, "components": 5},
}


class TrainConfig(BaseModel):
    """Everything that decides a run. Written, resolved, to the run's `config.yaml`.

    What the defaults reach, and what they were held against, is in docs/training.md.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: Kind = Field(default="cgan", description="gan, cgan, vae or cvae")
    recipe: Recipe = Field(default="default", description="settings that belong together; any of them can be given")
    data: str = Field(default="mnist-5k", min_length=1, description="a named set, hf:OWNER/NAME or a folder")
    limit: int | None = Field(
        default=None, ge=1, description="use at most so many images: of train and of test each, where a set has both"
    )
    out: Path = Field(default=Path("runs/model"), description="the run folder")
    size: Literal[28, 32, 64] | None = Field(default=None, description="pixels; default: the set's own, 32 for folders")
    epochs: float | None = Field(default=None, gt=0, le=1e6, description="passes over the training images")
    seconds: float | None = Field(default=None, gt=0, le=1e7, description="seconds in the training loop alone")
    seed: int = Field(default=0, ge=0, lt=2**63, description="of weights, latents, order of images, dropout")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: CUDA where it answers")
    init_from: Path | None = Field(default=None, description="a run or checkpoint whose weights are the start")
    evaluate_every: int | None = Field(default=None, ge=1, description="images between evaluations; default: ten a run")
    patience: int | None = Field(
        default=None, ge=1, description="stop after so many evaluations without a better FID; default: never"
    )

    balance: bool | None = Field(
        default=None,
        description="conditional kinds: show every class equally often; default: where the largest class has over "
        "twice the images of the smallest. An epoch stays as many images",
    )
    augment: bool = Field(
        default=False,
        description="DiffAugment: the discriminator sees real and generated images only shifted, relit and cut out, "
        "so that it cannot learn a small set by heart",
    )
    batch: int = Field(default=32, ge=2, le=8192, description="images a step")
    latent: int = Field(default=0, ge=1, le=1024, description="default: 100 adversarial, 32 variational")
    width: int = Field(default=16, ge=4, le=256, description="channels of the last hidden layer; doubles inwards")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of features hidden from the discriminator's head"
    )
    normalization: Literal["batch", "none"] = Field(
        default="batch", description="in the discriminator; batch: its verdict on an image depends on the batch"
    )
    spectral_norm: bool = Field(
        default=False, description="divide the discriminator's weights by their largest singular value"
    )

    loss: Literal["logistic", "hinge", "relativistic"] = Field(
        default="logistic", description="of the adversarial game (training/losses.py)"
    )
    r1: float = Field(
        default=0.0,
        ge=0,
        description="weight of the squared slope of D at real images; meant for normalization=none",
    )
    r2: float = Field(default=0.0, ge=0, description="the same at generated images")
    likelihood: Literal["laplace", "gaussian", "bernoulli"] = Field(
        default="gaussian",
        description="of a pixel; gaussian (squared errors) and laplace (absolute ones, the sharper where critic is 0): "
        "their scale is the optimum, no weight to tune",
    )
    critic: float = Field(
        default=20.0,
        ge=0,
        description="variational kinds: nats that a discriminator's verdict on reconstructions weighs; "
        "0: pixels alone, which is quicker and blurred",
    )
    kl_warmup: float = Field(
        default=0.0, ge=0, le=1, description="share of the budget in which the divergence's weight rises from 0 to 1"
    )
    free_bits: float = Field(
        default=0.0, ge=0, description="nats of divergence that each latent may have without any pressure"
    )
    components: int = Field(
        default=0,
        ge=1,
        le=64,
        description="Gaussians fitted to the latents of a variational kind; default: 20, per class 5 where conditional",
    )

    generator_rate: float = Field(default=1.6e-3, gt=0, le=1, description="Adam's rate of the generator, adversarial")
    discriminator_rate: float = Field(default=3.2e-3, gt=0, le=1, description="Adam's rate of the discriminator")
    variational_rate: float = Field(default=2e-3, gt=0, le=1, description="Adam's rate of encoder and decoder")
    beta1: float = Field(default=0.0, ge=0, lt=1, description="Adam's memory of the gradient, adversarial")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="Adam's memory of its square, adversarial")
    decay_from: float = Field(
        default=0.5, ge=0, le=1, description="share of the budget after which the rates fall linearly to 0; 1: never"
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of a weight that a step of rate 1 takes away (AdamW: apart from Adam)",
    )
    clip: float | None = Field(
        default=None,
        gt=0,
        description="largest norm of an optimiser's whole gradient; the norm before is recorded",
    )
    ema_ramp: float = Field(default=10.0, gt=0, description="decay of the averaged weights at step n is n / (n + ramp)")
    ema_decay: float = Field(default=0.998, ge=0, lt=1, description="its end; 0: the weights themselves")

    exclusive: ClassVar[tuple[str, ...]] = ("epochs", "seconds")  # a source that gives one takes back the other

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, given: Any) -> Any:
        """Put under what was given what the recipe says, and under that what the kind wants."""
        if not isinstance(given, dict):
            return given
        chosen = {name: value for name, value in given.items() if value is not None}
        recipe, model = chosen.get("recipe", "default"), chosen.get("model", "cgan")
        settings = RECIPES[recipe] if recipe in tuple(RECIPES) else {}  # what is unknown is refused later
        return BY_KIND[model if model in tuple(BY_KIND) else "cgan"] | settings | chosen

    @model_validator(mode="after")
    def _coherent(self) -> "TrainConfig":
        if self.epochs is not None and self.seconds is not None:
            raise ValueError("give --epochs or --seconds, not both")
        if self.recipe != "default" and not self.adversarial:
            raise ValueError(f"the recipe {self.recipe} is one for gan and cgan, not for {self.model}")
        return self

    @property
    def conditional(self) -> bool:
        return self.model in ("cgan", "cvae")

    @property
    def adversarial(self) -> bool:
        return self.model in ("gan", "cgan")

    @property
    def budget_epochs(self) -> float | None:
        """Epochs to train, or None where seconds decide. With neither given: 20 epochs."""
        return None if self.seconds is not None else (self.epochs or 20.0)


class ModelSpec(BaseModel):
    """The shape of a model: all that is needed to build its networks again. Stored in every checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Kind
    latent: int
    size: Literal[28, 32, 64]
    channels: Literal[1, 3]
    class_names: tuple[str, ...] = ()
    width: int

    @property
    def classes(self) -> int:
        """Number of classes the model is conditioned on: 0 for an unconditional one."""
        return len(self.class_names)
