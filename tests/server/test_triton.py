"""What Triton's clients are told of a model; the rest of it is asked over HTTP in routes/test_oip.py."""

from export.engines import ENGINES
from server.triton import PLATFORMS


def test_every_engine_has_a_backend_and_a_platform() -> None:
    assert set(PLATFORMS) == set(ENGINES)
    for engine, (backend, platform) in PLATFORMS.items():
        assert engine.startswith(backend)
        assert platform.startswith(f"{backend}_")  # <project>_<format>, as the protocol has it
