"""A real process against a Hub on loopback: what it serves is read, what it refuses is one line."""

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from datasets import ClassLabel, Features
from datasets import Dataset as Table
from datasets import Image as ImageFeature
from PIL import Image

COMMIT = "a" * 40


def parquet(levels: range) -> bytes:
    def picture(level: int) -> dict[str, object]:
        file = io.BytesIO()
        Image.new("L", (28, 28), level).save(file, "PNG")
        return {"bytes": file.getvalue(), "path": None}

    columns = {"image": [picture(level) for level in levels], "label": [level % 10 for level in levels]}
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=list("0123456789"))})
    file = io.BytesIO()
    Table.from_dict(columns, features=features).to_parquet(file)
    return file.getvalue()


class Hub(ThreadingHTTPServer):
    """As much of huggingface.co as reading one set asks for: access, commit, listing, files."""

    def __init__(self, refusal: tuple[int, str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.refusal = refusal
        self.files = {
            "data/train-00000-of-00001.parquet": parquet(range(60)),
            "data/test-00000-of-00001.parquet": parquet(range(60, 90)),
        }
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        files = self.server.files
        if self.server.refusal:
            self.answer(self.server.refusal[0], {"X-Error-Code": self.server.refusal[1]})
        elif "/resolve/" in path:
            body = files.get(path.split("/resolve/")[1].partition("/")[2])
            tags = {"X-Repo-Commit": COMMIT}
            if body is None:
                self.answer(404, tags | {"X-Error-Code": "EntryNotFound"})
            else:
                self.answer(200, tags | {"ETag": f'"{hashlib.sha256(body).hexdigest()}"'}, body)
        elif "/tree/" in path:
            listed = [{"type": "directory", "path": "data", "oid": COMMIT}]
            if path.endswith("/data"):
                listed = [{"type": "file", "path": name, "size": len(files[name]), "oid": COMMIT} for name in files]
            self.answer(200, {}, json.dumps(listed).encode())
        else:  # access and commit
            names = [{"rfilename": name} for name in files]
            said = {"id": "ylecun/mnist", "sha": COMMIT, "siblings": names, "private": False, "tags": []}
            self.answer(200, {}, json.dumps(said | {"downloads": 0, "likes": 0}).encode())

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


def load(data: str, home: Path, endpoint: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Load in a process of its own: where the Hub is, its library reads once, when it is imported."""
    code = (
        "import sys\n"
        "from training.data import load\n"
        "from training.errors import DataError\n"
        "try: d = load(sys.argv[1])\n"
        "except DataError as error: print(error)\n"
        "else: print(d.name, len(d.train), len(d.val), d.test.images[:, 0, 0, 0].tolist() == list(range(60, 90)))\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HOME": str(home), "HF_HOME": str(home / "hf"), "HF_ENDPOINT": endpoint, **settings}
    return subprocess.run(
        [sys.executable, "-c", code, data], env=environment, capture_output=True, text=True, check=True, timeout=60
    )


def nowhere() -> str:
    """An address of loopback that refuses connections."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{found.getsockname()[1]}"


def test_a_set_is_fetched_once_and_then_read_without_a_network(tmp_path: Path) -> None:
    with serving(Hub()) as hub:
        first = load("mnist", tmp_path, hub.url)
        assert any(path.endswith("train-00000-of-00001.parquet") for path in hub.asked)
    assert (first.stdout, first.stderr) == ("mnist 54 6 True\n", "")  # no bars or remarks of the libraries
    again = load("hf:ylecun/mnist", tmp_path, nowhere())
    assert (again.stdout, again.stderr) == ("ylecun/mnist 54 6 True\n", "")


@pytest.mark.parametrize(
    ("data", "mend"),
    [
        ("mnist", "Connect to a network, or give the folder of its files: --data mnist:FOLDER."),
        ("hf:ylecun/mnist", "or give a folder of the set's parquet files: --data FOLDER."),
    ],
)
def test_without_a_network_one_line_says_what_else_to_do(tmp_path: Path, data: str, mend: str) -> None:
    said = load(data, tmp_path, nowhere())
    assert said.stderr == ""
    (line,) = said.stdout.splitlines()
    assert line.startswith("Hugging Face does not answer ([Errno 111] Connection refused) and its cache has no 'ylecun")
    assert line.endswith(mend)


def test_fashion_mnist_without_debians_files_and_a_network_names_both(tmp_path: Path) -> None:
    code = "from pathlib import Path; from training import data; data.FASHION_FOLDER = Path('/no/where')\n"
    code += "try: data.load('fashion-mnist')\nexcept data.DataError as error: print(error)"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert "HF_HUB_OFFLINE is set" in said
    assert "Install Debian's dataset-fashion-mnist" in said
    assert "fashion-mnist:FOLDER" in said


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        ((404, "RepoNotFound"), "Hugging Face has no set 'some/thing' for everybody. Check the name"),
        ((401, "RepoNotFound"), "Hugging Face has no set 'some/thing' for everybody. Check the name"),
        ((403, "GatedRepo"), "only to who has asked for it. Ask on https://huggingface.co/datasets/some/thing, then"),
        ((500, ""), "Hugging Face does not answer (Server error '500 Internal Server Error'"),
    ],
)
def test_what_the_hub_refuses_is_one_line(tmp_path: Path, refusal: tuple[int, str], line: str) -> None:
    with serving(Hub(refusal)) as hub:
        said = load("hf:some/thing", tmp_path, hub.url)
    assert said.stderr == ""
    assert len(said.stdout.splitlines()) == 1
    assert line in said.stdout


def test_a_set_without_pictures_is_refused_in_one_line(tmp_path: Path) -> None:
    with serving(Hub()) as hub:
        hub.files = {"data/readme.bin": b"nothing of use"}
        said = load("hf:ylecun/mnist", tmp_path, hub.url)
    assert (len(said.stdout.splitlines()), said.stderr) == (1, "")
    assert "cannot read 'ylecun/mnist'" in said.stdout


@pytest.mark.parametrize("identifier", ["", "a/b/c/d", "../up", "with space", "a//b"])
def test_what_is_no_id_is_refused_without_asking(identifier: str) -> None:
    from training import data
    from training.errors import DataError

    with pytest.raises(DataError, match=r"is no Hugging Face id\. It looks like hf:owner/name"):
        data.load(f"hf:{identifier}")
