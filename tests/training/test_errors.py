"""An error is one line with its mend, its exit code and its code."""

import pytest

from training.errors import ConfigError, DataError, Interrupted, LimnerError, RunError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (LimnerError("no data at 'x'", "Give a folder."), "no data at 'x'. Give a folder."),
        (LimnerError("no data at 'x'"), "no data at 'x'"),
        (
            LimnerError("a library said:\n  line one\n\tline two", "Try\nagain."),
            "a library said: line one line two. Try again.",
        ),
    ],
)
def test_an_error_is_one_line(error: LimnerError, line: str) -> None:
    assert str(error) == line


@pytest.mark.parametrize(
    ("kind", "exit_code", "code"),
    [
        (LimnerError, 1, "internal"),
        (ConfigError, 1, "config"),
        (DataError, 1, "data"),
        (RunError, 1, "run"),
        (Interrupted, 130, "interrupted"),
    ],
)
def test_an_error_carries_its_exit_code_and_code(kind: type[LimnerError], exit_code: int, code: str) -> None:
    error = kind("what", "mend")
    assert isinstance(error, LimnerError)
    assert (error.exit_code, error.code, error.what, error.mend) == (exit_code, code, "what", "mend")
