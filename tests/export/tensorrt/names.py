"""Bindings wheels of TensorRT in, the names that Python sees in them out: tests/export/tensorrt-VERSION.txt.

    python tests/export/tensorrt/names.py

The wheels install anywhere, but load only beside the libraries that NVIDIA serves by itself. So the names are read out
of the binary: pybind11 gives each as a C string, whose address the code loads. Names of arguments are among them.
"""

import ast
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = "tensorrt-cu13-bindings"
VERSIONS = ("10.16", "11.4")
LOADS_ADDRESS = re.compile(
    rb"[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d](?=(.{4}))", re.DOTALL
)  # lea r64, [rip+n]
RELATIVE = 8  # R_X86_64_RELATIVE: an address in a table
IDENTIFIER = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*(?=\0)")
MANGLED = re.compile(r"nvinfer1|nvonnxparser|pybind11|\d[A-Za-z_]+E$|^St\d")  # names of C++ types


def names_in(binary: bytes) -> set[str]:
    """An x86-64 shared object -> the identifiers among the C strings whose address it takes."""
    sections = _sections(binary)
    text_at, text = sections[".text"]
    strings_at, strings = sections[".rodata"]
    addresses = {text_at + found.end() + 4 + struct.unpack("<i", found[1])[0] for found in LOADS_ADDRESS.finditer(text)}
    entries = struct.iter_unpack("<QQq", sections[".rela.dyn"][1])
    addresses |= {addend for _, info, addend in entries if info & 0xFFFFFFFF == RELATIVE}
    inside = (address - strings_at for address in addresses if 0 <= address - strings_at < len(strings))
    found = {match[0].decode() for place in inside if (match := IDENTIFIER.match(strings, place))}
    return {name for name in found if not MANGLED.search(name)}


def names_of(wheel: Path) -> set[str]:
    """A bindings wheel -> what its binary registers and its Python file defines."""
    with zipfile.ZipFile(wheel) as files:
        [binary] = [name for name in files.namelist() if name.count("/") == 1 and name.endswith(".so")]
        module = ast.parse(files.read(str(Path(binary).with_name("__init__.py"))))
        names = names_in(files.read(binary))
    for node in module.body:
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


def listed(version: str) -> set[str]:
    """The names in the committed list of a version."""
    lines = (HERE / f"tensorrt-{version}.txt").read_text(encoding="ascii").splitlines()
    return {line for line in lines if not line.startswith("#")}


def _sections(binary: bytes) -> dict[str, tuple[int, bytes]]:
    """An ELF file -> address and bytes of each section by name."""
    [table] = struct.unpack_from("<Q", binary, 0x28)
    size, count, names = struct.unpack_from("<HHH", binary, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", binary, table + number * size) for number in range(count)]
    labels = headers[names][4]
    found = {}
    for label, _, _, address, offset, length in headers:
        name = binary[labels + label : binary.index(b"\0", labels + label)].decode()
        found[name] = (address, binary[offset : offset + length])
    return found


def main() -> None:
    platform = ["--python-version", "3.11", "--platform", "manylinux_2_28_x86_64", "--only-binary", ":all:"]
    for version in VERSIONS:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, *platform]
            subprocess.run([*command, f"{PACKAGE}=={version}.*"], check=True)
            [wheel] = Path(folder).glob("*.whl")
            lines = [f"# {PACKAGE} {wheel.name.split('-')[1]}", *sorted(names_of(wheel))]
        (HERE / f"tensorrt-{version}.txt").write_text("\n".join(lines) + "\n", encoding="ascii")
        print(f"{lines[0]}: {len(lines) - 1} names")


if __name__ == "__main__":
    main()
