"""Settings in, one frozen and validated TrainConfig out. Imports no torch."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["gan", "cgan", "vae", "cvae"]
SIZES = (28, 32, 64)


class TrainConfig(BaseModel):
    """Everything that decides a run. Written, resolved, to the run's `config.yaml`.

    The defaults make a CGAN of MNIST-5k in a minute on two cores (label agreement .99, within-class variance .9 of
    real).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Kind = Field(default="cgan", description="gan, cgan, vae or cvae")
    data: str = Field(
        default="mnist-5k", min_length=1, description="a named set, a folder of images or a folder of idx files"
    )
    out: Path = Field(default=Path("runs/model"), description="the run folder")
    size: Literal[28, 32, 64] | None = Field(default=None, description="pixels; default: the set's own, 32 for folders")
    epochs: float | None = Field(default=None, gt=0, le=1e6, description="passes over the training images")
    seconds: float | None = Field(default=None, gt=0, le=1e7, description="wall seconds in the training loop")
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    batch: int = Field(default=64, ge=2, le=8192, description="images a step")
    latent: int | None = Field(default=None, ge=1, le=1024, description="default: 100 adversarial, 32 variational")
    width: int = Field(default=16, ge=4, le=256, description="channels of the last hidden layer; doubles inwards")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="before the discriminator's head")
    generator_rate: float = Field(default=1.6e-3, gt=0, le=1, description="Adam, adversarial")
    discriminator_rate: float = Field(default=8e-4, gt=0, le=1, description="Adam, adversarial")
    variational_rate: float = Field(default=2e-3, gt=0, le=1, description="Adam, encoder and decoder")
    ema_ramp: float = Field(default=10.0, gt=0, description="EMA decay at step n is n / (n + ramp), at most ema_decay")
    ema_decay: float = Field(default=0.998, ge=0, lt=1)

    exclusive: ClassVar[tuple[str, ...]] = ("epochs", "seconds")  # a source that gives one takes back the other

    @model_validator(mode="after")
    def _one_budget(self) -> "TrainConfig":
        if self.epochs is not None and self.seconds is not None:
            raise ValueError("give --epochs or --seconds, not both")
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

    model_config = ConfigDict(frozen=True, extra="forbid")

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
