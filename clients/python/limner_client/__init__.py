"""A limner server's address in, pictures out.

>>> from limner_client import Client
>>> with Client("http://127.0.0.1:8000") as client:
...     three = client.generate(label=3, seed=7)
...     three.save("three.png")
"""

from limner_client.answers import Answer, Entry, Format, Made, Saved
from limner_client.async_client import AsyncClient
from limner_client.calls import Models, Options, Priority, ServedModel, ServedVersion
from limner_client.client import Client
from limner_client.downloads import Progress
from limner_client.errors import (
    ApiError,
    ClientError,
    ConnectionFailed,
    Expired,
    HeadTooLarge,
    Hopeless,
    IncompleteAnswer,
    InvalidAddress,
    InvalidParameter,
    Malformed,
    MethodNotAllowed,
    MissingExtra,
    NotAcceptable,
    NotFound,
    NotReady,
    Overloaded,
    ServerFailed,
    TimedOut,
    TooLarge,
    Unparsable,
    UnsupportedType,
)
from limner_client.retries import Retries

__all__ = [
    "Answer",
    "ApiError",
    "AsyncClient",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "Entry",
    "Expired",
    "Format",
    "HeadTooLarge",
    "Hopeless",
    "IncompleteAnswer",
    "InvalidAddress",
    "InvalidParameter",
    "Made",
    "Malformed",
    "MethodNotAllowed",
    "MissingExtra",
    "Models",
    "NotAcceptable",
    "NotFound",
    "NotReady",
    "Options",
    "Overloaded",
    "Priority",
    "Progress",
    "Retries",
    "Saved",
    "ServedModel",
    "ServedVersion",
    "ServerFailed",
    "TimedOut",
    "TooLarge",
    "Unparsable",
    "UnsupportedType",
]
__version__ = "0.1.0"
