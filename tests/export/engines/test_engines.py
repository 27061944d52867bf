"""The two engines of the CPU keep one contract: buckets, labels, rows that are not finite, refusals of one line."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.engines import ENGINES, EngineError, NonFinite, finite, obstacle, open_engine, padded

BUCKETS = (1, 4, 8)
EXTRAS = {"onnxruntime": "cpu", "openvino": "openvino"}


@pytest.fixture(params=EXTRAS)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., Path]:
    """`rows(conditional=True, mixed=True)`: a graph whose pictures [2, 2, 1] tell where they were drawn.

    image = z + N (+ label), so that a picture tells the size of its batch; mixed: the largest z of the batch instead of
    z, so that it tells who else was there. check = the mean of z.
    """

    def write(conditional: bool = False, mixed: bool = False) -> Path:
        inputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4])]
        nodes = [
            helper.make_node("Shape", ["z"], ["rows"], start=0, end=1),
            helper.make_node("Cast", ["rows"], ["batch"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["z", "first"], ["largest"]),
            helper.make_node("Mul", ["z", "nothing"], ["zeros"]),
            helper.make_node("Add", ["zeros", "largest"], ["shared"]),
            helper.make_node("Add", ["shared" if mixed else "z", "batch"], ["sum"]),
            helper.make_node("ReduceMean", ["z", "axis"], ["check"], keepdims=0),
        ]
        if conditional:
            inputs += [helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])]
            nodes += [
                helper.make_node("Cast", ["label"], ["flat"], to=TensorProto.FLOAT),
                helper.make_node("Unsqueeze", ["flat", "axis"], ["column"]),
                helper.make_node("Add", ["sum", "column"], ["labelled"]),
            ]
        nodes += [
            helper.make_node("Reshape", ["labelled" if conditional else "sum", "shape"], ["pixels"]),
            helper.make_node("Cast", ["pixels"], ["image"], to=TensorProto.UINT8),
        ]
        outputs = [
            helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 2, 2, 1]),
            helper.make_tensor_value_info("check", TensorProto.FLOAT, ["N"]),
        ]
        constants = [
            helper.make_tensor("first", TensorProto.INT64, [1], [0]),
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
            helper.make_tensor("nothing", TensorProto.FLOAT, [1], [0]),
            helper.make_tensor("shape", TensorProto.INT64, [4], [-1, 2, 2, 1]),
        ]
        graph = helper.make_graph(nodes, "rows", inputs, outputs, constants)
        path = tmp_path / "model.onnx"
        onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), path)
        return path

    return write


def latents(count: int) -> np.ndarray:
    return np.arange(4 * count, dtype=np.float32).reshape(count, 4)


# batches


def test_a_batch_runs_in_the_next_bucket_and_comes_back_in_its_own_size(engine: str, rows: Callable[..., Path]) -> None:
    opened = open_engine(engine, "fp32", rows(), BUCKETS)
    for count, bucket in ((1, 1), (2, 4), (3, 4), (4, 4), (5, 8), (8, 8)):
        images = opened.run(latents(count), None)
        assert (images.shape, images.dtype) == ((count, 2, 2, 1), np.uint8)
        assert np.array_equal(images.reshape(count, 4), latents(count) + bucket)


def test_without_buckets_a_batch_runs_as_it_comes(engine: str, rows: Callable[..., Path]) -> None:
    opened = open_engine(engine, "fp32", rows())
    for count in (3, 1, 5):
        assert np.array_equal(opened.run(latents(count), None).reshape(count, 4), latents(count) + count)


def test_labels_go_with_their_latents(engine: str, rows: Callable[..., Path]) -> None:
    expected = latents(3) + np.array([[10], [20], [30]])
    for buckets, size in ((BUCKETS, 4), ((), 3)):
        images = open_engine(engine, "fp32", rows(conditional=True), buckets).run(latents(3), np.array([10, 20, 30]))
        assert np.array_equal(images.reshape(3, 4), expected + size)


def test_what_fills_a_bucket_is_the_last_row_and_nothing_of_an_earlier_batch(
    engine: str, rows: Callable[..., Path]
) -> None:
    opened = open_engine(engine, "fp32", rows(conditional=True, mixed=True), (4,))
    before = opened.run(latents(4) + 100, np.full(4, 50))
    assert (before.reshape(4, 4) == 4 + np.array([112, 113, 114, 115]) + 50).all()
    after = opened.run(-latents(2) + 20, np.array([0, 7]))  # 20 to 17, then 16 to 13
    assert after.reshape(2, 4).tolist() == [[24, 23, 22, 21], [31, 30, 29, 28]]  # a stale row would be larger
    alone = opened.run(-latents(1) - 1, np.array([50]))
    assert alone.reshape(4).tolist() == [53, 52, 51, 50]  # a row of zeros would be larger too


def test_an_answer_stays_what_it_was_when_the_next_batch_runs(engine: str, rows: Callable[..., Path]) -> None:
    for buckets in (BUCKETS, ()):
        opened = open_engine(engine, "fp32", rows(), buckets)
        first = opened.run(latents(4), None)
        before = first.copy()
        opened.run(latents(4) + 9, None)
        assert np.array_equal(first, before)
        first += np.uint8(1)  # nor is it anybody else's memory
        assert np.array_equal(opened.run(latents(4), None), before)


def test_another_thread_than_the_one_that_opened_it_may_run_it(engine: str, rows: Callable[..., Path]) -> None:
    opened, answers = open_engine(engine, "fp32", rows(), BUCKETS), list[np.ndarray]()
    for count in (3, 8):
        thread = threading.Thread(target=lambda count=count: answers.append(opened.run(latents(count), None)))
        thread.start()
        thread.join()
    assert [answer[0, 0, 0, 0] for answer in answers] == [4, 8]


@pytest.mark.parametrize(
    ("value", "bad"),
    [(np.nan, [0]), (np.nan, [4]), (np.inf, [2, 4]), (-np.inf, [1])],  # the last row is the one that fills the bucket
)
def test_rows_that_are_not_finite_are_named_and_the_others_given(
    engine: str, rows: Callable[..., Path], value: float, bad: list[int]
) -> None:
    z = latents(5)
    z[bad, 1] = value
    with pytest.raises(NonFinite) as caught:
        open_engine(engine, "fp32", rows(), BUCKETS).run(z, None)
    good = [row for row in range(5) if row not in bad]
    assert caught.value.rows == bad
    assert caught.value.images.shape == (5, 2, 2, 1)
    assert np.array_equal(caught.value.images.reshape(5, 4)[good], latents(5)[good] + 8)


def test_a_conditional_graph_needs_labels(engine: str, rows: Callable[..., Path]) -> None:
    with pytest.raises(EngineError, match="without labels"):
        open_engine(engine, "fp32", rows(conditional=True)).run(latents(3), None)


@pytest.mark.parametrize("buckets", [BUCKETS, ()])
@pytest.mark.parametrize("width", [5, 1])  # numpy would make one column four
def test_a_batch_that_fails_is_an_engine_error_and_the_next_one_runs(
    engine: str, rows: Callable[..., Path], buckets: tuple[int, ...], width: int
) -> None:
    opened = open_engine(engine, "fp32", rows(), buckets)
    with pytest.raises(EngineError, match="failed on a batch") as caught:
        opened.run(np.zeros((3, width), np.float32), None)
    assert caught.value.__cause__ is not None
    assert not isinstance(caught.value, NonFinite)
    assert opened.run(latents(1), None).max() == 1 + 3


def test_each_latent_needs_its_label(engine: str, rows: Callable[..., Path]) -> None:
    for buckets in (BUCKETS, ()):
        opened = open_engine(engine, "fp32", rows(conditional=True), buckets)
        for count in (1, 2, 4):  # one could be taken for all, two could be padded
            with pytest.raises(EngineError, match=f"3 latents came with {count} labels"):
                opened.run(latents(3), np.zeros(count, np.int64))


def test_closing_twice_is_nothing_and_a_closed_engine_runs_nothing(engine: str, rows: Callable[..., Path]) -> None:
    opened = open_engine(engine, "fp32", rows(), BUCKETS)
    opened.close()
    opened.close()
    with pytest.raises(EngineError):
        opened.run(latents(1), None)


def test_an_engine_says_what_its_pixels_depend_on(engine: str, rows: Callable[..., Path]) -> None:
    opened = open_engine(engine, "fp32", rows(), BUCKETS)
    told = opened.describe()
    version = __import__(engine).__version__.partition("-")[0]
    assert (told["engine"], told["precision"], told["version"]) == (engine, "fp32", version)
    assert told["device"].startswith("cpu-")
    assert opened.artifact == "-".join(told[part] for part in ("engine", "precision", "version", "device"))
    assert opened.buckets == BUCKETS


# refusals


@pytest.mark.parametrize("content", [None, b"", b"no graph"], ids=["missing", "empty", "corrupt"])
def test_a_file_that_is_no_graph_is_refused_in_one_line(engine: str, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(EngineError, match=r"cannot load \S+model\.onnx\. Export the run again\.$") as caught:
        open_engine(engine, "fp32", tmp_path / "model.onnx", BUCKETS)
    assert "\n" not in str(caught.value)


def test_a_graph_that_is_cut_off_is_refused(engine: str, rows: Callable[..., Path]) -> None:
    path = rows()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(EngineError, match="cannot load"):
        open_engine(engine, "fp32", path, BUCKETS)


def test_a_package_that_is_not_installed_is_one_line_with_the_mend(
    engine: str, rows: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rows()
    monkeypatch.setitem(sys.modules, engine, None)
    line = f"{engine} is not installed. In limner's folder: pip install '.[{EXTRAS[engine]}]'"
    assert str(obstacle(engine, "fp32")).startswith(line)
    with pytest.raises(EngineError) as caught:
        open_engine(engine, "fp32", path)
    assert str(caught.value) == str(obstacle(engine, "fp32"))


def test_a_package_that_does_not_load_is_one_line_that_says_why(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library of the system is missing: the package is there, so installing it again would do nothing."""
    (tmp_path / f"{engine}.py").write_text("raise ImportError('libgomp.so.1: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, engine, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    line = str(obstacle(engine, "fp32"))
    assert line.startswith(f"{engine} does not load (libgomp.so.1: cannot open shared object file). ")
    assert f"pip uninstall {engine}" in line


def test_the_folder_that_one_of_two_onnxruntimes_left_is_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))  # no __init__.py: an empty namespace
    assert str(obstacle("onnxruntime", "fp32")).startswith("onnxruntime does not load (files of it are missing)")


def test_an_engine_that_there_is_not_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    line = f"this limner has no engine 'ncnn'. There is {', '.join(ENGINES)}."
    assert str(obstacle("ncnn", "fp32")) == line
    with pytest.raises(EngineError, match="no engine 'ncnn'"):
        open_engine("ncnn", "fp32", tmp_path / "model.onnx")


def test_a_precision_that_there_is_not_is_refused_before_the_file_is_touched(engine: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="fp64"):
        open_engine(engine, "fp64", tmp_path / "missing.onnx")


def test_nothing_speaks_against_fp32_on_the_cpu(engine: str) -> None:
    assert obstacle(engine, "fp32") is None


def test_an_engine_is_imported_when_it_is_opened_and_not_before() -> None:
    script = "import sys, export.engines; print(sorted({'onnxruntime', 'openvino', 'cuda'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"


# their parts


@pytest.mark.parametrize(
    ("count", "buckets", "expected"),
    [(3, (1, 4), [0, 1, 2, 2]), (3, (2, 8), [0, 1, 2, 2, 2, 2, 2, 2]), (4, (1, 4), [0, 1, 2, 3]), (3, (), [0, 1, 2])],
)
def test_padding_repeats_the_last_row(count: int, buckets: tuple[int, ...], expected: list[int]) -> None:
    assert padded(np.arange(count), buckets).tolist() == expected


def test_finite_pictures_pass_as_they_are() -> None:
    images = np.zeros((2, 1, 1, 1), np.uint8)
    assert finite(images, np.array([0, -1e30], np.float32)) is images
    with pytest.raises(NonFinite, match="not finite") as caught:
        finite(images, np.array([np.nan, 0], np.float32))
    assert (caught.value.rows, caught.value.images is images) == ([0], True)
