"""The driver is asked for GPUs without any package, and a stream owns its memory and graphs. No GPU: stand-ins."""

import re
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda.bindings import runtime as real  # pyright: ignore[reportAttributeAccessIssue]

from export.engines import EngineError
from export.engines.cuda import Device, Stream, call, devices, no_device, runtime

L4 = Device(0, "NVIDIA L4", "8.9")


def test_the_driver_lists_names_and_compute_capabilities(gpus: Callable[..., None]) -> None:
    gpus(("NVIDIA L4", 8, 9), ("NVIDIA RTX PRO 6000", 12, 0))
    assert devices() == (L4, Device(1, "NVIDIA RTX PRO 6000", "12.0"))
    assert no_device() is None


def test_without_a_driver_there_are_no_devices_and_one_line_says_so(gpus: Callable[..., None]) -> None:
    gpus(None)
    assert devices() == ()
    assert "no NVIDIA driver" in str(no_device())


def test_hidden_gpus_are_told_from_a_missing_driver(gpus: Callable[..., None]) -> None:
    gpus(status=100)
    assert devices() == ()
    assert re.search("finds no GPU.*CUDA_VISIBLE_DEVICES", str(no_device()))


def test_a_driver_that_does_not_answer_is_quoted(gpus: Callable[..., None]) -> None:
    gpus(("NVIDIA L4", 8, 9), status=803)
    assert devices() == ()
    assert "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" in str(no_device())


def test_asking_for_devices_needs_no_package_and_no_cuda_runtime() -> None:
    script = "import sys; from export.engines.cuda import devices; devices(); print('cuda' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_missing_cuda_bindings_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(EngineError, match=r"cuda-bindings does not load.*pip install '\.\[tensorrt\]'"):
        runtime()


def test_the_stand_in_has_no_function_and_no_parameter_that_cuda_bindings_have_not(cuda: Any) -> None:
    for name, function in vars(type(cuda)).items():
        if name.startswith("cuda"):
            parameters = re.match(rf"{name}\((.*?)\)", getattr(real, name).__doc__)
            assert parameters is not None, name
            count = len(list(filter(None, parameters[1].split(","))))
            assert count == function.__code__.co_argcount - 1, name


def test_an_error_code_is_an_engine_error_that_names_it(cuda: Any) -> None:
    cuda.fail("cudaGetDeviceCount", real.cudaError_t.cudaErrorMemoryAllocation)
    with pytest.raises(EngineError, match=r"cudaErrorMemoryAllocation, out of memory\. Free memory"):
        call(cuda.cudaGetDeviceCount)
    assert cuda.calls[-1] == "cudaGetLastError"  # or the next one to ask would be told of it


def test_a_stream_carries_rows_there_and_back_once_it_is_waited_for(cuda: Any) -> None:
    stream = Stream(L4)
    there, back = stream.on_host((3, 2), np.float32), stream.on_host((3, 2), np.float32)
    assert not there.any()
    there[...] = [[1, 2], [3, 4], [5, 6]]
    address = stream.on_device(there.nbytes)
    stream.upload(there, address)
    stream.download(address, back[:2])
    assert not back.any()
    stream.wait()
    assert back.tolist() == [[1, 2], [3, 4], [0, 0]]
    stream.close()


def test_a_copy_beyond_its_memory_is_refused(cuda: Any) -> None:
    stream = Stream(L4)
    rows, address = stream.on_host((4,), np.float32), stream.on_device(12)
    with pytest.raises(EngineError, match="cudaErrorInvalidValue"):
        stream.upload(rows, address)
    stream.close()


def test_a_captured_graph_runs_only_when_launched_and_as_often(cuda: Any) -> None:
    stream = Stream(L4)
    there, back = stream.on_host((1,), np.int64), stream.on_host((1,), np.int64)
    address = stream.on_device(8)

    def work() -> None:
        stream.upload(there, address)
        stream.download(address, back)

    graph = stream.capture(work)
    there[0] = 1
    stream.wait()
    assert back[0] == 0
    for there[0] in (5, 7):
        stream.launch(graph)
        stream.wait()
        assert back[0] == there[0]
    stream.close()


@pytest.mark.parametrize("step", ["work", "end", "instantiate"])
def test_a_capture_that_fails_leaves_a_stream_that_works(cuda: Any, step: str) -> None:
    stream = Stream(L4)
    there, back = stream.on_host((1,), np.int64), stream.on_host((1,), np.int64)
    address = stream.on_device(8)
    if step == "instantiate":
        cuda.fail("cudaGraphInstantiate", real.cudaError_t.cudaErrorMemoryAllocation)

    def work() -> None:
        if step == "work":
            raise EngineError("refused")
        if step == "end":  # what a capture does not allow breaks it, even where its caller passes over the answer
            cuda.cudaStreamSynchronize(stream.handle)

    said = {"work": "refused", "end": "cudaErrorStreamCaptureInvalidated", "instantiate": "out of memory"}
    with pytest.raises(EngineError, match=said[step]):
        stream.capture(work)
    there[0] = 3
    stream.upload(there, address)
    stream.download(address, back)
    stream.wait()
    assert back[0] == 3
    stream.close()


def test_memory_that_cannot_be_had_frees_what_was(cuda: Any) -> None:
    stream = Stream(L4)
    stream.on_device(8)
    cuda.fail("cudaHostAlloc", real.cudaError_t.cudaErrorMemoryAllocation)
    with pytest.raises(EngineError, match="out of memory"):
        stream.on_host((1,), np.int64)
    stream.close()


def test_another_thread_may_close_and_closing_twice_is_nothing(cuda: Any) -> None:
    stream = Stream(L4)
    stream.on_device(8)
    thread = threading.Thread(target=stream.close)
    thread.start()
    thread.join()
    assert cuda.memory == {}
    stream.close()
