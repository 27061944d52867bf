"""Everything that decides how the server behaves: one frozen object, resolved once by the command line.

Each field is read from `LIMNER_<FIELD>` where no flag is given.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import NoDecode

from export.bundle import NAME
from export.choice import AUTO
from export.engines import ENGINES, PRECISIONS

ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/?#\s,]+")
MOST_WORKERS = 1024
CHECKOUT_OR_SITE = Path(__file__).resolve().parents[1]  # the wheel keeps the checkout's layout
JS_CLIENT = CHECKOUT_OR_SITE / "clients" / "js" / "limner-client.js"  # which the playground imports


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    models: Path = Field(default=Path("models"), description="a folder of bundles, or one bundle")
    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0: all of this machine")
    port: int = Field(default=8000, ge=0, le=65535, description="0 takes any free port")
    name: str | None = Field(default=None, pattern=rf"^{NAME.pattern}$", description="name of a single model")
    default_model: str | None = Field(default=None, description="answers requests that name no model")
    engine: str = Field(
        default=AUTO,
        description="NAME or NAME:PRECISION; auto: the first fp32 artifact that passed its gates and runs here",
    )
    engine_threads: int | None = Field(
        default=None, ge=1, le=1024, description="CPU threads of one batch; default: all cores, divided by the workers"
    )
    workers: int | Literal["auto"] = Field(
        default=1, description="processes that serve the port, each with its own engines; auto: one for each core"
    )
    metrics_folder: Path | None = Field(
        default=None, description="where several workers count together; default: a temporary folder"
    )
    max_images: int = Field(default=1024, ge=1, description="largest n of an answer that is made before it is sent")
    max_streamed: int = Field(default=100_000, ge=1, description="largest n as npy or zip: sent while it is made")
    max_sheet: int = Field(default=256, ge=1, description="largest n of a picture format")
    max_frames: int = Field(default=256, ge=2, description="most frames from one end of an interpolation to the other")
    max_pixels: int = Field(default=1 << 24, ge=1, description="of an answer that is scaled up; of a zip: each picture")
    queue_images: int = Field(default=4096, ge=1, description="images waiting for one model; more are refused with 429")
    timeout_seconds: float = Field(default=30.0, gt=0, description="from arrival to pixels; then 504")
    max_body_bytes: int = Field(default=1 << 20, ge=1, description="of a request; a larger one is refused with 413")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="origins of pages that may ask from a browser, by commas: https://a.example; * for all"
    )
    drain_seconds: float = Field(
        default=20.0, ge=0, description="for requests in flight after SIGTERM; then they are cut"
    )
    playground: Path = Field(default=CHECKOUT_OR_SITE / "clients" / "playground", description="folder of the page at /")

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _by_commas(cls, origins: object) -> object:
        return [part.strip() for part in origins.split(",") if part.strip()] if isinstance(origins, str) else origins

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not ORIGIN.fullmatch(origin):
                raise ValueError("name scheme, host and port alone, such as https://a.example:8080, or *")
        return origins

    @field_validator("workers", mode="before")
    @classmethod
    def _some_workers(cls, workers: object) -> object:
        if workers == AUTO or (str(workers).isdecimal() and 1 <= int(str(workers)) <= MOST_WORKERS):
            return workers
        raise ValueError(f"take a number from 1 to {MOST_WORKERS}, or {AUTO}")

    @field_validator("engine")
    @classmethod
    def _an_engine_that_there_is(cls, engine: str) -> str:
        name, colon, precision = engine.partition(":")
        known = name in ENGINES and (precision in PRECISIONS if colon else True)
        if engine != AUTO and not known:
            raise ValueError(f"take {AUTO} or one of {', '.join(ENGINES)}, with :{', :'.join(PRECISIONS)} or without")
        return engine

    @model_validator(mode="after")
    def _largest_answer_fits_the_queue(self) -> "Settings":
        if self.max_images > self.queue_images:
            raise ValueError(f"max_images ({self.max_images}) is over queue_images ({self.queue_images})")
        return self
