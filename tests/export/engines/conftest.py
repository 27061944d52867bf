"""A stand-in of NVIDIA's driver and of the CUDA runtime: real memory, streams that run when they are waited for.

It holds its caller to the rules: bounds and directions of copies, the device chosen in each thread, nothing allocated
and nothing waited for while a stream is capturing, nothing freed twice. What it found is in `violations`.
"""
# ruff: noqa: N802

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cuda.bindings import runtime as real  # pyright: ignore[reportAttributeAccessIssue]

from export.engines import cuda as module

Error = real.cudaError_t
OK = Error.cudaSuccess
ANYWHERE = ("cudaSetDevice", "cudaGetDeviceCount", "cudaGetLastError")


class Driver:
    """libcuda with these GPUs, or whose first call fails with a status."""

    ERRORS = {100: b"CUDA_ERROR_NO_DEVICE", 803: b"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"}  # noqa: RUF012

    def __init__(self, *gpus: tuple[str, int, int], status: int = 0) -> None:
        self.gpus, self.status = gpus, status

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuGetErrorName(self, status: int, name: Any) -> int:
        name._obj.value = self.ERRORS[status]
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, handle: Any, index: int) -> int:
        handle._obj.value = 40 + index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, handle: Any) -> int:
        name.value = self.gpus[handle.value - 40][0].encode()
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, handle: Any) -> int:
        value._obj.value = self.gpus[handle.value - 40][{75: 1, 76: 2}[attribute]]
        return 0


class Cuda:
    """`cuda.bindings.runtime`, whose enums and texts are the real ones."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.violations: list[str] = []
        self.moved: list[int] = []
        self.memory: dict[int, tuple[str, Any]] = {}
        self.queues: dict[int, list[Callable[[], None]]] = {}
        self.captured: dict[int, list[Callable[[], None]]] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self._failures: dict[str, list[Any]] = {}
        self._broken: set[int] = set()
        self._lost: Any = OK
        self._chosen = threading.local()
        self._handles = iter(range(1000, 2000))

    def fail(self, name: str, *errors: Any) -> None:
        """The next calls of a function give these. What CUDA says is for good, all later calls give too."""
        self._failures[name] = list(errors)

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if not name.startswith("cuda"):
            return found

        def recorded(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            if name not in ANYWHERE and not hasattr(self._chosen, "device"):
                self.violations.append(f"{name} in a thread that chose no device")
            if self._failures.get(name):
                error = self._failures[name].pop(0)
                if error != OK:
                    self._lost = error if "must be terminated" in " ".join((error.__doc__ or "").split()) else OK
                    return (error, None)
            if self._lost != OK and name not in ANYWHERE:
                found(*arguments)
                return (self._lost, None)
            return found(*arguments)

        return recorded

    def __getattr__(self, name: str) -> Any:
        return getattr(real, name)

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        (self.captured[stream] if stream in self.captured else self.queues[stream]).append(work)

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return OK, 1

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        self._chosen.device = device
        return (OK,)

    def cudaGetLastError(self) -> tuple[Any, ...]:
        return (OK,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        handle = next(self._handles)
        self.queues[handle] = []
        return OK, real.cudaStream_t(handle)

    def cudaStreamDestroy(self, stream: Any) -> tuple[Any, ...]:
        return self._drop(self.queues, int(stream))

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        return self._allocate("device", size)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        return self._allocate("host", size)

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        return self._drop(self.memory, address)

    def cudaFreeHost(self, address: int) -> tuple[Any, ...]:
        return self._drop(self.memory, address)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: Any, stream: Any) -> tuple[Any, ...]:
        sides = {real.cudaMemcpyKind.cudaMemcpyHostToDevice: ("device", "host")}.get(kind, ("host", "device"))
        if (self.where(to, size), self.where(source, size)) != sides:
            return (Error.cudaErrorInvalidValue,)

        def work() -> None:
            ctypes.memmove(to, source, size)
            self.moved.append(size)

        self.enqueue(int(stream), work)
        return (OK,)

    def cudaStreamSynchronize(self, stream: Any) -> tuple[Any, ...]:
        if int(stream) in self.captured:
            self._broken.add(int(stream))
            return (Error.cudaErrorStreamCaptureUnsupported,)
        queue = self.queues[int(stream)]
        while queue:
            queue.pop(0)()
        return (OK,)

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> tuple[Any, ...]:
        if self.queues[int(stream)]:
            self.violations.append("work was pending when a capture began")
        self.captured[int(stream)] = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: Any) -> tuple[Any, ...]:
        work = self.captured.pop(int(stream))
        if int(stream) in self._broken:
            self._broken.discard(int(stream))
            return Error.cudaErrorStreamCaptureInvalidated, None
        return OK, self._graph(work)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:
        return OK, self._graph(self.graphs[graph])

    def cudaGraphLaunch(self, graph: int, stream: Any) -> tuple[Any, ...]:
        for work in self.graphs[graph]:
            self.enqueue(int(stream), work)
        return (OK,)

    def cudaGraphDestroy(self, graph: int) -> tuple[Any, ...]:
        return self._drop(self.graphs, graph)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[Any, ...]:
        return self._drop(self.graphs, graph)

    def where(self, address: int, size: int) -> str | None:
        """The kind of memory that holds all of it."""
        for start, (kind, memory) in self.memory.items():
            if start <= address and address + size <= start + len(memory):
                return kind
        return None

    def _allocate(self, kind: str, size: int) -> tuple[Any, ...]:
        if self.captured:
            self._broken.update(self.captured)
            return Error.cudaErrorStreamCaptureUnsupported, None
        memory = (ctypes.c_ubyte * size)(*[0xCD] * size)
        self.memory[ctypes.addressof(memory)] = kind, memory
        return OK, ctypes.addressof(memory)

    def _graph(self, work: list[Callable[[], None]]) -> int:
        handle = next(self._handles)
        self.graphs[handle] = list(work)
        return handle

    def _drop(self, owned: dict[int, Any], handle: int) -> tuple[Any, ...]:
        if any(self.queues.values()):
            self.violations.append("freed while work was pending")
        if owned.pop(handle, None) is None:
            self.violations.append("freed what was not there")
        return (OK,)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`gpus(("NVIDIA L4", 8, 9))` are what the driver finds from then on; `gpus(None)`: there is no driver."""
    library = ctypes.CDLL

    def install(*found: Any, status: int = 0) -> None:
        def load(name: str, *arguments: Any) -> Any:
            if name != module.DRIVER:
                return library(name, *arguments)
            if found == (None,):
                raise OSError(f"{name}: cannot open shared object file")
            return Driver(*found, status=status)

        monkeypatch.setattr(ctypes, "CDLL", load)
        module._asked.cache_clear()

    yield install
    module._asked.cache_clear()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch, gpus: Callable[..., None]) -> Iterator[Cuda]:
    """A machine with one NVIDIA L4. At the end all must be freed and no rule broken."""
    gpus(("NVIDIA L4", 8, 9))
    stand_in = Cuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", stand_in)
    yield stand_in
    assert (stand_in.violations, stand_in.memory, stand_in.queues, stand_in.graphs) == ([], {}, {}, {})
