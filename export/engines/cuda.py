"""NVIDIA's driver in, devices out; a device in, a stream with its memory and graphs out. Without torch.

Never run on a GPU so far: tested up to the driver's answer, and against a stand-in of the driver and of CUDA's calls.
`devices` asks the driver itself, which needs no package and makes no CUDA context. `Stream` is over cuda-bindings.
"""

import ctypes
import importlib
import math
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from export.engines import EngineError

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...
_NO_DRIVER = "Take another engine, or a machine with an NVIDIA GPU and its driver."
_MENDS = {
    "cudaErrorInsufficientDriver": "Update the NVIDIA driver.",
    "cudaErrorMemoryAllocation": "Free memory of the GPU, serve fewer models, or export smaller buckets.",
} | dict.fromkeys(
    (  # after these CUDA gives the same error to the end of the process
        "cudaErrorContained",
        "cudaErrorIllegalAddress",
        "cudaErrorLaunchTimeout",
        "cudaErrorAssert",
        "cudaErrorHardwareStackError",
        "cudaErrorIllegalInstruction",
        "cudaErrorMisalignedAddress",
        "cudaErrorInvalidAddressSpace",
        "cudaErrorInvalidPc",
        "cudaErrorLaunchFailure",
        "cudaErrorTensorMemoryLeak",
        "cudaErrorMpsClientTerminated",
        "cudaErrorExternalDevice",
    ),
    "CUDA is lost to this process: start it again.",
)


@dataclass(frozen=True)
class Device:
    """A GPU. `index` counts those that CUDA_VISIBLE_DEVICES leaves; `capability` is its compute capability, "8.9"."""

    index: int
    name: str
    capability: str


def devices() -> tuple[Device, ...]:
    """The GPUs that CUDA can use, () where there are none or no driver. Asked once."""
    return _asked()[0]


def no_device() -> EngineError | None:
    """Why there is no GPU to run on, with the mend; None where there is one."""
    found, why, mend = _asked()
    return None if found else EngineError(why, mend)


@cache
def _asked() -> tuple[tuple[Device, ...], str, str]:
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return (), "no NVIDIA driver is installed", _NO_DRIVER
    try:
        return _listed(driver), "the NVIDIA driver finds no GPU", "See nvidia-smi; CUDA_VISIBLE_DEVICES may hide them."
    except _Refused as error:
        return (), f"the NVIDIA driver does not answer ({error})", "See nvidia-smi; a reboot helps after an update."


class _Refused(Exception):
    """A call of the driver failed; its error's name."""


def _listed(driver: Any) -> tuple[Device, ...]:
    def ask(function: str, *arguments: Any) -> None:
        status = getattr(driver, function)(*arguments)
        if status != 0:
            name = ctypes.c_char_p()
            driver.cuGetErrorName(status, ctypes.byref(name))
            raise _Refused((name.value or b"error %d" % status).decode())

    count, handle, major, minor = (ctypes.c_int() for _ in range(4))
    name = ctypes.create_string_buffer(256)
    if driver.cuInit(0) == _NO_DEVICE:
        return ()
    ask("cuInit", 0)
    ask("cuDeviceGetCount", ctypes.byref(count))
    found = []
    for index in range(count.value):
        ask("cuDeviceGet", ctypes.byref(handle), index)
        ask("cuDeviceGetName", name, len(name), handle)
        ask("cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, handle)
        ask("cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, handle)
        found.append(Device(index, name.value.decode(errors="replace"), f"{major.value}.{minor.value}"))
    return tuple(found)


def runtime() -> Any:
    """`cuda.bindings.runtime`. Raises EngineError where it is not installed or does not load."""
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise EngineError(
            f"cuda-bindings does not load ({error})",
            "In limner's folder: pip install '.[tensorrt]', or '.[tensorrt-rtx]'.",
        ) from error


def call(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    """What a function of `runtime()` gives beside its error code: the one place that reads the code.

    Raises EngineError naming it.
    """
    error, *given = function(*arguments)
    if int(error) != 0:
        cuda = runtime()
        cuda.cudaGetLastError()  # forgets it, or whoever asks next would take it for his own
        said = cuda.cudaGetErrorString(error)[1].decode()
        raise EngineError(f"CUDA failed: {error.name}, {said}", _MENDS.get(error.name, "See limner doctor."))
    return given[0] if given else None


class Stream:
    """A CUDA stream of one device, with all memory and graphs that were made on it until `close`.

    Any thread, one at a time, after `use`. Every method raises EngineError naming the CUDA error.
    """

    def __init__(self, device: Device) -> None:
        self._cuda = runtime()
        self._device = device.index
        self._owned = ExitStack()  # freed without reading error codes: one that lasts was told by the call before
        self.use()
        self.handle: Any = call(self._cuda.cudaStreamCreateWithFlags, self._cuda.cudaStreamNonBlocking)
        self._owned.callback(self._cuda.cudaStreamDestroy, self.handle)

    def use(self) -> None:
        """Make the device the calling thread's own."""
        call(self._cuda.cudaSetDevice, self._device)

    def on_device(self, size: int) -> int:
        """Bytes -> the address of as many on the device."""
        address = call(self._cuda.cudaMalloc, size)
        self._owned.callback(self._cuda.cudaFree, address)
        return address

    def on_host(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Zeros in page-locked memory, which the device reads and writes itself. Not to be touched after `close`."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        address = call(self._cuda.cudaHostAlloc, size, self._cuda.cudaHostAllocDefault)
        self._owned.callback(self._cuda.cudaFreeHost, address)
        rows = np.frombuffer(memoryview((ctypes.c_ubyte * size).from_address(address)), dtype).reshape(shape)
        rows[...] = 0
        return rows

    def upload(self, rows: np.ndarray, address: int) -> None:
        """Enqueue a copy from page-locked memory to the device."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        call(self._cuda.cudaMemcpyAsync, address, rows.ctypes.data, rows.nbytes, kind, self.handle)

    def download(self, address: int, rows: np.ndarray) -> None:
        """Enqueue a copy from the device to page-locked memory."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        call(self._cuda.cudaMemcpyAsync, rows.ctypes.data, address, rows.nbytes, kind, self.handle)

    def capture(self, work: Callable[[], None]) -> Any:
        """What `work` enqueues, as a CUDA graph to `launch`. Nothing of it runs. Raises also what `work` raises."""
        cuda = self._cuda
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal  # other threads may go on with theirs
        call(cuda.cudaStreamBeginCapture, self.handle, mode)
        try:
            work()
        except BaseException:
            with suppress(EngineError):  # a stream that is left capturing cannot be used again
                call(cuda.cudaGraphDestroy, call(cuda.cudaStreamEndCapture, self.handle))
            raise
        graph = call(cuda.cudaStreamEndCapture, self.handle)
        try:
            executable = call(cuda.cudaGraphInstantiate, graph, 0)
        finally:
            call(cuda.cudaGraphDestroy, graph)
        self._owned.callback(cuda.cudaGraphExecDestroy, executable)
        return executable

    def launch(self, graph: Any) -> None:
        """Enqueue a graph of `capture`."""
        call(self._cuda.cudaGraphLaunch, graph, self.handle)

    def wait(self) -> None:
        """Until all that was enqueued is done."""
        call(self._cuda.cudaStreamSynchronize, self.handle)

    def close(self) -> None:
        """Free everything, once nothing uses it any more. A second time does nothing."""
        owned, self._owned = self._owned, ExitStack()
        if self.handle is not None:
            self._cuda.cudaSetDevice(self._device)
            self._cuda.cudaStreamSynchronize(self.handle)
            self.handle = None
        owned.close()
