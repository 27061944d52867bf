"""Host and port in, a listening socket and its address out."""

import socket

from training.errors import ConfigError

BACKLOG = 2048


def bind(host: str, port: int, tries: int = 1, shared: bool = False) -> socket.socket:
    """A listening socket on `port`, or the first free one of the `tries` - 1 after it. Raises ConfigError.

    It listens at once, because two sockets can be bound to one port until then: the later of two servers that start
    together would print its address and never be asked. Who connects during the warm-up waits for its end. If it is
    `shared`, `another` makes more of them.
    """
    failure: OSError | None = None
    for number in range(port, min(port + tries, 65536)):
        try:
            listener = _listener((host, number))
            if shared:  # only now that nobody else is there: a shared one would join whoever shares it too
                with listener:
                    found = listener.getsockname()
                listener = _listener(found, shared)
            return listener
        except OSError as error:
            failure = error
    reason = failure.strerror if failure else "no port left"
    raise ConfigError(f"cannot listen on {host}:{port} ({reason})", "Choose another --port or --host.")


def another(listener: socket.socket) -> socket.socket:
    """One more socket of a shared one's address. It listens once it is served."""
    return _listener(listener.getsockname(), shared=True, listens=False)


def _listener(place: tuple[str, int], shared: bool = False, listens: bool = True) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(place[:2])
        if listens:
            listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def address(listener: socket.socket) -> str:
    """http://127.0.0.1:8000, with a name to open where the socket listens on every interface."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"
