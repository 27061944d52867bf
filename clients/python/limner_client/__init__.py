"""A limner server's address in, pictures out.

>>> from limner_client import Client
>>> with Client("http://127.0.0.1:8000") as client:
...     three = client.generate(label=3, seed=7)
...     three.save("three.png")
"""

from limner_client.client import Answer, Client
from limner_client.errors import ApiError, ClientError, ConnectionFailed

__all__ = ["Answer", "ApiError", "Client", "ClientError", "ConnectionFailed"]
__version__ = "0.1.0"
