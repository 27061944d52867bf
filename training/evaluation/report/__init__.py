"""Contents in, one HTML file out that needs no network."""

from training.evaluation.report.contents import Contents

__all__ = ["Contents", "render"]


def render(contents: Contents) -> str:
    """The page as text. The same contents give the same bytes.

    Raises ModuleNotFoundError where jinja2 or matplotlib is missing: nothing but this asks for them.
    """
    from training.evaluation.report.page import page

    return page(contents)
