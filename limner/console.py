"""What a command has to say in, lines for people or JSON out; also what it says when something is missing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape

from training.errors import ConfigError

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A line for the user, with no markup in it: names and paths may hold brackets."""
    out.print(text, markup=False)


def print_json(content: dict[str, Any]) -> None:
    """The content on stdout; NaN and infinities, which JSON lacks, raise ValueError."""
    import json

    print(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def quality_line(quality: dict[str, Any]) -> str:
    """The quick figures, as far as they are there, in one line."""
    floor = quality.get("floor") or {}
    agreement, ratio, fid = (quality.get(name) for name in ("agreement", "within_class_variance_ratio", "fid"))
    said = [] if agreement is None else [f"the judge agrees with the label on {agreement:.1%} of samples"]
    said += [] if ratio is None else [f"variance within classes {ratio:.2f} of real"]
    said += [] if fid is None else [f"FID {fid:.1f}" + (f" (real images {floor['fid']:.1f})" if "fid" in floor else "")]
    said += [f"{name} {quality[name]:.2f}" for name in ("precision", "recall") if quality.get(name) is not None]
    return "; ".join(said) or "not judged"


def complain(text: str, exit_code: int = 1) -> NoReturn:
    """One line on stderr, called an error if the exit code is 1, and the end of the process."""
    err.print(f"[bold red]error:[/] {escape(text)}" if exit_code == 1 else escape(text))
    sys.exit(exit_code)


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """A package that an extra brings is missing: say which."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{(error.name or '').partition('.')[0]} is not installed", f"In limner's folder: pip install '.[{extra}]'."
        ) from error
