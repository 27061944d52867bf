"""An ONNX file in, a session on ONNX Runtime's CPU provider out: for engines, judges and features that are brought."""

from pathlib import Path
from typing import Any

from export.engines import EngineError


def open_session(path: Path, threads: int | None = None, mend: str = "Export the run again.") -> Any:
    """An `onnxruntime.InferenceSession`. `threads`: CPU threads of one run, None = its choice.

    Raises EngineError where ONNX Runtime is not installed, or with `mend` where it cannot load the file.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise EngineError(
            f"{(error.name or '').partition('.')[0]} is not installed",
            "In limner's folder: pip install '.[cpu]', or '.[gpu]'.",
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads must not burn cores
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many types, none of them documented
        raise EngineError(f"ONNX Runtime cannot load {path}", mend) from error
