"""Every name that the code takes from TensorRT is one that TensorRT 10.16, 11.4 and TensorRT-RTX have.

The lists are from names.py, which reads them out of the bindings' binaries. This shows names, not behaviour:
not which class has a name, nor what it does. What TensorRT-RTX shares is run by test_build.py.
"""

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import tensorrt_rtx
from tensorrt_rtx_bindings import tensorrt_rtx as bindings  # pyright: ignore[reportAttributeAccessIssue]

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CODE = (
    "export/tensorrt/build.py",
    "export/tensorrt/network.py",
    "export/tensorrt/progress.py",
    "export/engines/flavours.py",
    "export/engines/tensorrt.py",
)
OBJECTS = {
    *("trt", "builder", "network", "parser", "fault", "config", "profile", "tensor", "cache"),
    *("runtime", "engine", "inspector", "context"),
}
"""What the code calls TensorRT's objects, as variables and, behind an underscore, as attributes."""
RTX_ALONE = {
    *("num_compute_capabilities", "set_compute_capability", "ComputeCapability"),
    *("dynamic_shapes_kernel_specialization_strategy", "DynamicShapesKernelSpecializationStrategy", "EAGER"),
}
"""Used where the flavour has `capabilities` or the module has the name."""
TENSORRT_ALONE = {"create_timing_cache", "set_timing_cache", "serialize"}
"""Used where the flavour has `timing_cache`; of TensorRT-RTX they are deprecated."""
OWN = {"take"}
"""A method of ours in a class that TensorRT calls."""


def names_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tensorrt_names", HERE / "names.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


SCRIPT = names_script()


def is_tensorrt(node: ast.expr) -> bool:
    """Whether an expression is one of TensorRT's objects, or an attribute or element of one."""
    if isinstance(node, ast.Name):
        return node.id in OBJECTS
    if isinstance(node, ast.Attribute):
        own = isinstance(node.value, ast.Name) and node.value.id == "self"
        return node.attr.removeprefix("_") in OBJECTS if own else is_tensorrt(node.value)
    return isinstance(node, ast.Subscript) and is_tensorrt(node.value)


def names_taken(source: str) -> set[str]:
    """The attributes of TensorRT's objects in a file, and the methods that its classes override."""
    names = set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and is_tensorrt(node.value):
            names.add(node.attr)
        elif isinstance(node, ast.ClassDef) and any(is_tensorrt(base) for base in node.bases):
            methods = {method.name for method in node.body if isinstance(method, ast.FunctionDef)}
            names |= {name for name in methods if not name.startswith("_")} - OWN
    return names


def of_rtx() -> set[str]:
    """What the installed TensorRT-RTX has, in its module and its classes."""
    names = set(dir(tensorrt_rtx))
    for thing in vars(tensorrt_rtx).values():
        if isinstance(thing, type):
            names.update(dir(thing))
    return names


def strange(source: str) -> set[str]:
    """Names that the code takes and that are not where the code says they are."""
    taken = names_taken(source)
    everywhere = set.intersection(*(SCRIPT.listed(version) for version in SCRIPT.VERSIONS))
    return (taken - RTX_ALONE - everywhere) | (taken - TENSORRT_ALONE - of_rtx())


@pytest.mark.parametrize("file", CODE)
def test_each_name_is_in_both_lists_and_in_tensorrt_rtx(file: str) -> None:
    assert strange((ROOT / file).read_text(encoding="utf-8")) == set()


def test_the_names_of_the_build_and_of_the_run_are_seen() -> None:
    """Else the test above would hold for code that it does not read."""
    taken = set[str]().union(*(names_taken((ROOT / file).read_text(encoding="utf-8")) for file in CODE))
    assert taken >= RTX_ALONE | TENSORRT_ALONE
    assert taken >= {"Builder", "OnnxParser", "STRONGLY_TYPED", "build_serialized_network", "set_shape", "num_errors"}
    assert taken >= {"ILogger", "log", "IProgressMonitor", "step_complete", "AMPERE_PLUS", "VERSION_COMPATIBLE", "JSON"}
    assert taken >= {"deserialize_cuda_engine", "create_execution_context", "execute_async_v3", "set_tensor_address"}


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("builder.build_engine(network, config)", "build_engine"),  # gone since TensorRT 10
        ("config.set_flag(trt.BuilderFlag.FP16)", "FP16"),  # gone since TensorRT 11
        ("self._engine.get_binding_shape(0)", "get_binding_shape"),
        ("network.get_input(0); parser.parse_from_fil(path)", "parse_from_fil"),
        ("class Mine(trt.IProgressMonitor):\n    def step_completed(self): ...", "step_completed"),
    ],
)
def test_a_wrong_name_is_found(line: str, wrong: str) -> None:
    assert strange(line) == {wrong}


def test_what_is_called_alone_is_alone() -> None:
    """So that an exception does not outlive its reason."""
    assert of_rtx() >= RTX_ALONE
    both = set.intersection(*(SCRIPT.listed(version) for version in SCRIPT.VERSIONS))
    assert both >= TENSORRT_ALONE
    assert not both & (RTX_ALONE - {"EAGER"})


def test_the_reader_finds_what_bindings_that_load_register() -> None:
    """On the one binary whose names can be asked for: all but a few that Python itself adds."""
    assert bindings.__file__ is not None
    registered = set(vars(bindings))
    for thing in vars(bindings).values():
        if isinstance(thing, type):
            registered.update(vars(thing))
    registered = {name for name in registered if not name.startswith("__")}
    missed = registered - SCRIPT.names_in(Path(bindings.__file__).read_bytes())
    assert len(registered) > 1000
    assert missed <= {"PluginFieldCollection", "itemsize", "_pybind11_conduit_v1_"}  # added by Python code, by pybind11
