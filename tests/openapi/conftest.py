"""The tools that read the OpenAPI document, apart from the environment of the tests."""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

TOOLS = Path(__file__).parents[2] / ".tools"


@pytest.fixture(scope="session")
def python_tools(missing: Callable[[str], NoReturn]) -> Path:
    """The folder of schemathesis and openapi-python-client, and of the Python that has them."""
    return TOOLS / "python" / "bin" if (TOOLS / ".python").exists() else missing("`make tools` was not run")


@pytest.fixture(scope="session")
def node_modules(missing: Callable[[str], NoReturn]) -> Path:
    """With openapi-typescript, openapi-fetch and tsc."""
    return TOOLS / "node" / "node_modules" if (TOOLS / ".node").exists() else missing("`make tools` was not run")
