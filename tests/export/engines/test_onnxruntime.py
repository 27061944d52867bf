"""ONNX Runtime says when CUDA is not what runs, and CUDA's binding is run on the CPU. No GPU: stand-ins."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from export.doctor import PROBE
from export.engines import EngineError, NonFinite, cuda, obstacle, open_engine
from export.engines.onnxruntime import OnnxRuntime, OnnxRuntimeCuda
from export.engines.session import CPU, CUDA, open_session


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver finds an NVIDIA L4."""
    monkeypatch.setattr(cuda, "_asked", lambda: ((cuda.Device(0, "NVIDIA L4", "8.9"),), "", ""))


@pytest.fixture
def falls_back(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Sessions run on the CPU whatever is asked for, as where CUDA's libraries are missing; what was asked for."""
    asked, session = list[Any](), onnxruntime.InferenceSession

    def on_the_cpu(path: Path, options: Any, providers: list[Any]) -> Any:
        asked.extend(providers)
        return session(path, options, providers=[CPU])

    monkeypatch.setattr(onnxruntime, "InferenceSession", on_the_cpu)
    return asked


class Bound(OnnxRuntimeCuda):
    """CUDA's engine on the CPU: the same calls, really run."""

    provider = CPU
    memory = "cpu"


def latents(count: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=count)).standard_normal((count, 4), np.float32)


def pictures(z: np.ndarray) -> np.ndarray:
    """What the probe draws."""
    return np.clip(np.rint(128 + 20 * z), 0, 255).astype(np.uint8).reshape(-1, 2, 2, 1)


# what speaks against it


@pytest.mark.parametrize("engine", ["onnxruntime", "onnxruntime-cuda"])
def test_bf16_is_refused_with_what_there_is(engine: str) -> None:
    assert str(obstacle(engine, "bf16")) == "ONNX Runtime has no bf16. Take one of fp32, fp16, int8."


def test_without_a_driver_nobody_is_sent_to_install_a_larger_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_asked", lambda: ((), "no NVIDIA driver is installed", "Install it."))
    assert str(obstacle("onnxruntime-cuda", "fp32")).startswith("no NVIDIA driver is installed.")


@pytest.mark.usefixtures("gpu")
def test_a_package_without_cuda_is_told_from_a_missing_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    line = str(obstacle("onnxruntime-cuda", "fp32"))
    assert line.startswith("this ONNX Runtime has no CUDA provider. ")
    assert "pip uninstall onnxruntime onnxruntime-gpu, then pip install '.[gpu]'" in line  # -gpu alone may be spoilt
    with pytest.raises(EngineError) as caught:
        open_engine("onnxruntime-cuda", "fp32", PROBE)
    assert str(caught.value) == line


@pytest.mark.usefixtures("gpu")
def test_nothing_speaks_against_cuda_where_driver_and_package_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    assert obstacle("onnxruntime-cuda", "fp16") is None


# the provider


@pytest.mark.usefixtures("gpu", "falls_back")
def test_a_silent_fall_back_to_the_cpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    with pytest.raises(EngineError, match=r"did not load its CUDA provider and fell back\. See limner doctor"):
        open_engine("onnxruntime-cuda", "fp32", PROBE)


def test_on_cuda_fp32_is_asked_to_be_fp32_and_the_algorithms_the_same_every_time(falls_back: list[Any]) -> None:
    with pytest.raises(EngineError, match="fell back"):
        open_session(PROBE, provider=CUDA)
    assert falls_back == [(CUDA, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})]


def test_the_cpu_engine_runs_on_the_cpu_provider_alone() -> None:
    assert open_session(PROBE).get_providers() == [CPU]


def test_threads_are_those_that_were_asked_for() -> None:
    assert open_session(PROBE, threads=1).get_session_options().intra_op_num_threads == 1
    assert open_session(PROBE).get_session_options().intra_op_num_threads == 0  # its own choice


# the binding


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("buckets", [(1, 4, 8), ()])
def test_bound_inputs_and_outputs_give_the_same_pictures(buckets: tuple[int, ...]) -> None:
    bound, plain = Bound(PROBE, buckets=buckets), OnnxRuntime(PROBE, buckets=buckets)
    answers = {count: bound.run(latents(count), None) for count in (1, 3, 8, 2)}
    for count, answer in answers.items():  # after all have run: an answer is nobody else's memory
        assert np.array_equal(answer, pictures(latents(count)))
        assert np.array_equal(answer, plain.run(latents(count), None))


@pytest.mark.usefixtures("gpu")
def test_bound_outputs_tell_which_rows_are_not_finite() -> None:
    z = latents(3)
    z[1, 2] = np.nan
    with pytest.raises(NonFinite) as caught:
        Bound(PROBE, buckets=(1, 4)).run(z, None)
    assert caught.value.rows == [1]
    assert np.array_equal(caught.value.images[[0, 2]], pictures(z[[0, 2]]))


@pytest.mark.usefixtures("gpu")
def test_a_bound_batch_that_fails_is_an_engine_error_and_the_next_one_runs() -> None:
    engine = Bound(PROBE)
    with pytest.raises(EngineError, match="failed on a batch"):
        engine.run(np.zeros((3, 5), np.float32), None)
    assert np.array_equal(engine.run(latents(1), None), pictures(latents(1)))


@pytest.mark.usefixtures("gpu")
def test_on_cuda_pixels_depend_on_the_compute_capability() -> None:
    told = Bound(PROBE, "fp16").describe()
    assert (told["engine"], told["precision"], told["device"]) == ("onnxruntime-cuda", "fp16", "cuda-8.9")
    assert Bound(PROBE, "fp16").artifact == f"onnxruntime-cuda-fp16-{onnxruntime.__version__}-cuda-8.9"


def test_the_instruction_set_is_the_widest_that_the_cpu_says_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    from export.engines import onnxruntime as module

    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    for flags, expected in (({"sse2"}, "x86_64"), ({"avx", "avx2"}, "x86_64-avx2"), (set(), "x86_64")):
        monkeypatch.setattr(module, "cpu_flags", lambda flags=flags: flags)
        assert module.instruction_set() == expected


def test_of_fewer_bits_the_unit_that_multiplies_them_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 on AMX and on AVX-512 was seen to differ by a level in some pictures."""
    from export.engines import onnxruntime as module

    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(module, "cpu_flags", lambda: {"avx2", "avx512f", "avx512_bf16", "avx512_vnni"})
    assert module.instruction_set("bf16") == "x86_64-avx512f-avx512_bf16"
    assert module.instruction_set("int8") == "x86_64-avx512f-avx512_vnni"
    assert module.instruction_set("fp16") == module.instruction_set("fp32") == "x86_64-avx512f"
    monkeypatch.setattr(module, "cpu_flags", lambda: {"avx512f", "avx512_bf16", "amx_bf16"})
    assert module.instruction_set("bf16") == "x86_64-avx512f-amx_bf16"


def test_what_keeps_cuda_from_loading_a_file_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, options: Any, providers: Any) -> None:
        assert options.use_deterministic_compute
        raise RuntimeError("CUDA error 2: out of memory.\nexpression: cudaMalloc")

    monkeypatch.setattr(onnxruntime, "InferenceSession", full)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    with pytest.raises(EngineError, match=r"on CUDA \(CUDA error 2: out of memory\)\. See limner doctor") as caught:
        open_session(PROBE, provider=CUDA)
    assert "\n" not in str(caught.value)
