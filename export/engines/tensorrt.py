"""A plan in, an Engine on TensorRT or TensorRT-RTX out: buffers allocated once, a CUDA graph for each bucket.

Never run on hardware so far: tested up to the driver's answer, and against a stand-in of TensorRT's and CUDA's calls.
`make test-gpu` is the test for whoever has a GPU. It runs on the first GPU of CUDA_VISIBLE_DEVICES.

TensorRT-RTX makes kernels where the plan runs, by default a general one first and a better one meanwhile, which may
differ in the last bits. It is told to make that of a shape at once, so that an image stays the same image.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from export.engines import Engine, EngineError, finite, labels_of, padded
from export.engines.cuda import Stream, call, devices, no_device, runtime
from export.engines.flavours import COMPATIBLE, FLAVOURS, VERSION, load, logger, misfit

INPUTS, OUTPUTS = ("z", "label"), ("image", "check")
TYPES = {"z": np.float32, "label": np.int64, "image": np.uint8, "check": np.float32}


def obstacle(engine: str, precision: str, requirements: Mapping[str, str]) -> EngineError | None:
    """See `export.engines.obstacle`. The driver is asked first: without one, the library can take the process down."""
    flavour = FLAVOURS[engine]
    found = no_device()
    if found is not None:
        return found
    capability = devices()[0].capability
    try:
        trt = load(flavour)
        call(runtime().cudaGetDeviceCount)  # fails where the driver is too old for cuda-bindings
    except EngineError as error:
        return error
    return flavour.lack(capability, precision) or (
        misfit(flavour, requirements, trt.__version__, capability) if requirements else None
    )


def open_engine(
    engine: str,
    precision: str,
    path: Path,
    buckets: tuple[int, ...],
    threads: int | None,
    requirements: Mapping[str, str] | None = None,
) -> Engine:
    """See `export.engines.open_engine`."""
    widened = (requirements or {}).get(COMPATIBLE, "").split(", ")
    return TensorRT(engine, precision, path, buckets, carries_runtime=VERSION in widened)


class TensorRT:
    """See `export.engines.Engine`. Each bucket has its own execution context, set once to its shape.

    Without buckets every size up to the profile's largest runs in one context, without a graph. A plan is a program:
    open those that you made or trust.
    """

    on_cpu = False

    def __init__(
        self,
        engine: str,
        precision: str,
        path: Path,
        buckets: tuple[int, ...] = (),
        carries_runtime: bool = False,
    ) -> None:
        found = obstacle(engine, precision, {})
        if found is not None:
            raise found
        self._flavour = FLAVOURS[engine]
        self._trt = load(self._flavour)
        self._told = logger(self._flavour)
        self._told.take()  # what it said of others
        self._precision = precision
        self._carries_runtime = carries_runtime
        self._device = devices()[0]
        self._contexts: dict[int, Any] = {}
        self._graphs: dict[int, Any] = {}
        self._plain: dict[int, str] = {}
        self._host: dict[str, np.ndarray] = {}
        self._addresses: dict[str, int] = {}
        self._inputs: list[str] = []
        self._runtime: Any = None
        self._engine: Any = None
        self._loose: Any = None
        self.buckets = buckets
        self.artifact = "-".join([engine, precision, self._trt.__version__, f"cuda-{self._device.capability}"])
        self._stream = Stream(self._device)
        try:
            self._deserialize(path)
            self._allocate(path)
            if not buckets:
                self._loose = self._context()
            for size in buckets:
                self._prepare(size)
        except BaseException:
            self.close()
            raise

    def run(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        if self._engine is None:
            raise EngineError(f"{self._flavour.title} was asked for a batch after its engine was closed")
        if "label" in self._inputs:
            label = labels_of(z, label)
        self._stream.use()
        size = 0
        for name, rows in (("z", z), ("label", label)):
            if name in self._inputs and rows is not None:
                size = self._stage(name, padded(rows, self.buckets))
        self._infer(size)
        images, check = (self._host[name][: len(z)].copy() for name in OUTPUTS)
        return finite(images, check)

    def describe(self) -> dict[str, str]:
        plain = [f"not {size}: {why}" for size, why in self._plain.items()]
        return {
            "engine": self._flavour.engine,
            "precision": self._precision,
            "version": self._trt.__version__,
            "device": f"cuda-{self._device.capability}",
            "gpu": self._device.name,
            "cuda_graphs": "; ".join([", ".join(map(str, self._graphs)) or "none", *plain]),
        }

    def close(self) -> None:
        """Contexts before their engine, that before its runtime, and the memory last."""
        self._contexts.clear()
        self._graphs.clear()
        self._host.clear()
        self._loose = None
        self._engine = None
        self._runtime = None
        self._stream.close()

    def _deserialize(self, path: Path) -> None:
        try:
            plan = path.read_bytes()
        except OSError as error:
            raise EngineError(f"cannot read {path} ({error.strerror})", self._flavour.rebuild) from error
        try:
            self._runtime = self._trt.Runtime(self._told)
            if self._carries_runtime:  # as a plan for later versions does: code that runs on the host
                self._runtime.engine_host_code_allowed = True
            self._engine = self._runtime.deserialize_cuda_engine(plan)
        except (RuntimeError, TypeError) as error:  # as the bindings say that the library gave nothing
            raise EngineError(f"{self._flavour.title} does not start ({error})", "See limner doctor.") from error
        if self._engine is None:
            raise EngineError(f"{self._flavour.title} cannot load {path} ({self._told.take()})", self._flavour.rebuild)

    def _allocate(self, path: Path) -> None:
        """Staging and device memory for the largest batch."""
        engine = self._engine
        given = {
            name: engine.get_tensor_dtype(name) for name in map(engine.get_tensor_name, range(engine.num_io_tensors))
        }
        self._inputs = [name for name in INPUTS if name == "z" or name in given]
        types = {name: np.dtype(TYPES[name]) for name in (*self._inputs, *OUTPUTS)}
        if given != {name: getattr(self._trt, dtype.name) for name, dtype in types.items()}:
            raise EngineError(f"{path} is no plan of limner's: it has {', '.join(given)}", self._flavour.rebuild)
        least, _, most = (shape[0] for shape in engine.get_tensor_profile_shape("z", 0))
        outside = [str(size) for size in self.buckets if not least <= size <= most]
        if outside:
            raise EngineError(
                f"{path} runs batches of {least} to {most}, not {', '.join(outside)}", self._flavour.rebuild
            )
        largest = max(self.buckets, default=most)
        for name, dtype in types.items():
            shape = (largest, *tuple(engine.get_tensor_shape(name))[1:])
            self._host[name] = self._stream.on_host(shape, dtype)
            self._addresses[name] = self._stream.on_device(self._host[name].nbytes)

    def _context(self) -> Any:
        engine, trt = self._engine, self._trt
        if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):  # TensorRT-RTX alone
            config = engine.create_runtime_config()
            config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context()
        if context is None:
            raise EngineError(
                f"{self._flavour.title} makes no execution context ({self._told.take()})",
                "Free memory of the GPU, serve fewer models, or export smaller buckets.",
            )
        for name, address in self._addresses.items():
            self._accepted(context.set_tensor_address(name, address), f"the address of {name}")
        return context

    def _prepare(self, size: int) -> None:
        """A context of its own, warmed up on zeros, then captured; where that fails the bucket runs plainly."""
        context = self._shaped(self._context(), size)
        self._contexts[size] = context
        self._infer(size)
        if not getattr(context, "is_stream_capturable", lambda _: True)(int(self._stream.handle)):
            self._plain[size] = f"{self._flavour.title} cannot be captured"
            return
        try:
            self._graphs[size] = self._stream.capture(lambda: self._enqueue(context, size))
        except EngineError as error:
            self._plain[size] = error.what
            self._contexts[size] = self._shaped(self._context(), size)  # the old one may be left half-captured
        self._infer(size)

    def _shaped(self, context: Any, size: int) -> Any:
        for name in self._inputs:
            self._accepted(context.set_input_shape(name, (size, *self._host[name].shape[1:])), f"{size} rows of {name}")
        return context

    def _stage(self, name: str, rows: np.ndarray) -> int:
        """Copy rows [N, ...] to where the device reads them -> N."""
        place = self._host[name][: len(rows)]
        if (rows.shape, rows.dtype) != (place.shape, place.dtype):
            most = (f"{len(self._host[name])} or less", *map(str, place.shape[1:]))
            raise EngineError(
                f"the plan takes {name} {place.dtype} [{', '.join(most)}], not {rows.dtype} {list(rows.shape)}"
            )
        place[...] = rows
        return len(rows)

    def _infer(self, size: int) -> None:
        if size in self._graphs:
            self._stream.launch(self._graphs[size])
        else:
            context = self._contexts[size] if self.buckets else self._shaped(self._loose, size)
            self._enqueue(context, size)
        self._stream.wait()

    def _enqueue(self, context: Any, size: int) -> None:
        """Inputs to the device, the network, outputs back: all that one batch asks of the stream."""
        for name in self._inputs:
            self._stream.upload(self._host[name][:size], self._addresses[name])
        self._accepted(context.execute_async_v3(int(self._stream.handle)), f"a batch of {size}")
        for name in OUTPUTS:
            self._stream.download(self._addresses[name], self._host[name][:size])

    def _accepted(self, answer: bool, what: str) -> None:
        if not answer:
            raise EngineError(f"{self._flavour.title} refused {what} ({self._told.take()})", "See limner doctor.")
