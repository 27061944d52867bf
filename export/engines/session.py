"""An ONNX file in, an ONNX Runtime session out: for engines, judges and features that are brought."""

from pathlib import Path
from typing import Any

from export.engines import EngineError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
OPTIONS = {  # by default fp32 is TF32, and each session times cuDNN's algorithms anew and may choose others
    CUDA: {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},
}
DOCTOR = "See limner doctor, and nvidia-smi for free memory."
ANEW = "In limner's folder: pip uninstall onnxruntime onnxruntime-gpu, then pip install '.[cpu]', or '.[gpu]'."


def onnxruntime() -> Any:
    """The package, whichever of the two distributions brings it. Raises EngineError where it is missing or broken."""
    try:
        import onnxruntime

        if not hasattr(onnxruntime, "InferenceSession"):  # a folder that is left of two distributions
            raise ImportError("files of it are missing")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
            raise EngineError(
                "onnxruntime is not installed", "In limner's folder: pip install '.[cpu]', or '.[gpu]'."
            ) from error
        raise EngineError(f"onnxruntime does not load ({error})", ANEW) from error
    return onnxruntime


def open_session(
    path: Path, threads: int | None = None, mend: str = "Export the run again.", provider: str = CPU
) -> Any:
    """An `onnxruntime.InferenceSession`. `threads`: CPU threads of one run, None = its choice.

    Raises EngineError where ONNX Runtime is not installed, with `mend` where it cannot load the file, and where it
    silently took another provider than the one asked for.
    """
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads must not burn cores
    if provider == CUDA and hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()  # CUDA and cuDNN out of their wheels
    options.use_deterministic_compute = provider == CUDA  # on the CPU the gates find one order of sums without
    try:
        session = runtime.InferenceSession(path, options, providers=[(provider, OPTIONS.get(provider, {}))])
    except Exception as error:  # onnxruntime raises many types, none of them documented
        if provider == CUDA:  # full memory, a library that is missing
            said = (str(error).splitlines() or [""])[0].strip(" .")[:200]
            raise EngineError(f"ONNX Runtime cannot load {path} on CUDA ({said})", DOCTOR) from error
        raise EngineError(f"ONNX Runtime cannot load {path}", mend) from error
    if provider not in session.get_providers():
        raise EngineError(
            f"ONNX Runtime did not load its {provider.removesuffix('ExecutionProvider')} provider and fell back",
            f"{DOCTOR} Often CUDA or cuDNN is missing, or two distributions of ONNX Runtime are installed.",
        )
    return session
