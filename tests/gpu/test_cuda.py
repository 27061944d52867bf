"""On a GPU: the driver and CUDA's runtime agree on what is there, and a stream carries, captures and replays."""

import numpy as np
import pytest

from export.engines.cuda import Stream, call, devices, no_device, runtime

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _gpu() -> None:
    missing = no_device()
    if missing is not None:
        pytest.skip(str(missing))
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")


def test_the_driver_says_what_the_runtime_says() -> None:
    cuda = runtime()
    assert len(devices()) == call(cuda.cudaGetDeviceCount)
    for device in devices():
        told = call(cuda.cudaGetDeviceProperties, device.index)
        assert device.name == told.name.decode().rstrip("\0")
        assert device.capability == f"{told.major}.{told.minor}"


def test_a_captured_copy_there_and_back_runs_only_when_launched() -> None:
    stream = Stream(devices()[0])
    there, back = stream.on_host((5, 3), np.float32), stream.on_host((5, 3), np.float32)
    address = stream.on_device(there.nbytes)

    def work() -> None:
        stream.upload(there, address)
        stream.download(address, back)

    graph = stream.capture(work)
    there[...] = 1
    stream.wait()
    assert not back.any()
    for value in (2, 3):
        there[...] = value
        stream.launch(graph)
        stream.wait()
        assert (back == value).all()
    stream.close()
    stream.close()


def test_a_capture_that_is_broken_off_leaves_a_stream_that_works() -> None:
    stream = Stream(devices()[0])
    there, back = stream.on_host((4,), np.int64), stream.on_host((4,), np.int64)
    address = stream.on_device(there.nbytes)

    def work() -> None:
        stream.upload(there, address)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stream.capture(work)
    there[...] = 7
    stream.upload(there, address)
    stream.download(address, back)
    stream.wait()
    assert (back == 7).all()
    stream.close()
