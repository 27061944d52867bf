"""What a call can raise.

ClientError
├── ConnectionFailed    nobody answers at that address, or the answer broke off
└── ApiError            the server refused or failed; carries its problem details (RFC 9457)
"""


class ClientError(Exception):
    """The root of everything that this package raises."""


class ConnectionFailed(ClientError):
    pass


class ApiError(ClientError):
    """`status` is the HTTP status, `code` the last part of the problem's type; field, value and allowed may be None."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        field: str | None = None,
        value: str | None = None,
        allowed: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.value = value
        self.allowed = allowed
        self.retry_after = retry_after
