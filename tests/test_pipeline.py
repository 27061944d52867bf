"""Images in, pictures over HTTP out: every kind through every stage, by the commands a person types."""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from export.bundle import read

KINDS = {"gan": False, "cgan": True, "vae": False, "cvae": True}


def limner(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "HOME": str(folder)}
    command = [sys.executable, "-m", "limner", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=200
    ).stdout


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with colour pictures in three classes, as a user has them."""
    folder = tmp_path_factory.mktemp("workplace")
    noise = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (folder / "pictures" / name).mkdir(parents=True)
        for index in range(20):
            image = noise.integers(0, 80, (40, 30, 3), dtype=np.uint8)
            image[..., channel] += 170
            Image.fromarray(image).save(folder / "pictures" / name / f"{index:02d}.png")
    return folder


@pytest.mark.parametrize(
    "kind", ["cgan", "vae", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gan", "cvae"))]
)
def test_a_kind_goes_from_images_to_a_served_picture(workplace: Path, start_server, kind: str) -> None:
    limner(workplace, "train", "--model", kind, "--data", "pictures", "--epochs", "3", "--out", f"runs/{kind}")
    said = limner(workplace, "export", f"runs/{kind}", "--to", "onnx", "--models", f"served-{kind}")
    assert "onnxruntime:fp32" in said
    assert "is there already" not in said
    bundle = read(workplace / f"served-{kind}" / kind / "1")
    assert (bundle.manifest.kind, bundle.manifest.height, bundle.manifest.channels) == (kind, 32, 3)

    with start_server(workplace / f"served-{kind}") as url, httpx.Client(base_url=url) as http:
        answer = http.post("/generate", params={"n": 6, "seed": 5, "format": "npy"})
        images = np.load(io.BytesIO(answer.content), allow_pickle=False)
        assert (images.shape, images.dtype) == ((6, 32, 32, 3), np.uint8)
        assert len({image.tobytes() for image in images}) == 6  # six seeds, six pictures
        one = http.post("/generate", params={"seed": 7})
        entry = http.post("/generate", json={"n": 3, "seed": 5, "format": "json"}).json()["images"][2]
        assert base64.b64decode(entry["png"]) == one.content
        with Image.open(io.BytesIO(one.content)) as picture:
            assert (picture.size, picture.mode) == ((32, 32), "RGB")
            described = json.loads(picture.info["limner"])
        assert (described["digest"], described["seed"]) == (bundle.digest, "7")
        labelled = http.post("/generate", params={"label": "green", "seed": 7})
        assert labelled.status_code == (200 if KINDS[kind] else 422)
    limner(workplace, "generate", "--models", f"served-{kind}", "-n", "4", "--seed", "5", "-o", f"{kind}.png")
    with Image.open(workplace / f"{kind}.png") as sheet:
        assert sheet.size == (64, 64)
