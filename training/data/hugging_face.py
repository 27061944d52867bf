"""A Hugging Face id in, a Source out: from the Hub, or from its cache where the Hub is out of reach."""

import errno
import logging
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from training.data.images import Source
from training.data.tables import CHUNK, Rows, table_set
from training.errors import DataError

PATIENCE = 5.0  # seconds: who has no network is told so before thinking that the program hangs


def hub_set(identifier: str, name: str | None = None, instead: str = "") -> Source:
    """`owner/name` or `owner/name/configuration`. Raises DataError.

    `instead` says what else gives this set to a user without a network.
    """
    words = identifier.split("/")
    if len(words) > 3 or not all(re.fullmatch(r"\w[\w.-]*", word) for word in words):
        raise DataError(f"'{identifier}' is no Hugging Face id", "It looks like hf:owner/name.")
    tables = _fetch("/".join(words[:2]), words[2] if len(words) == 3 else None, instead)
    splits = {split: _table_rows(table) for split, table in tables.items()}
    files = sorted(file["filename"] for table in tables.values() for file in table.cache_files)
    return table_set(name or identifier, splits, f"hugging face {identifier} {files}", f"'{identifier}'")


def _fetch(repository: str, configuration: str | None, instead: str) -> dict[str, Any]:
    """split -> `datasets.Dataset`."""
    from datasets import config, load_dataset

    _quiet()
    reason = _out_of_reach(repository)
    offline = config.HF_HUB_OFFLINE
    try:
        config.HF_HUB_OFFLINE = offline or reason is not None  # or it would try for half a minute more
        tables = load_dataset(f"hf://datasets/{repository}", configuration)
        return {str(split): table for split, table in tables.items()}
    except MemoryError:
        raise
    except Exception as error:  # of a great many kinds, from three libraries
        raise _refusal(error, repository, reason, instead) from error
    finally:
        config.HF_HUB_OFFLINE = offline


def _out_of_reach(repository: str) -> str | None:
    """Why the Hub does not answer, asked once; None if the set is there and may be read. Raises DataError."""
    from datasets import config
    from huggingface_hub import get_session
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    if config.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        # HfApi.auth_check, which waits for ever for a server that is silent
        address = f"{config.HF_ENDPOINT}/api/datasets/{repository}/auth-check"
        hf_raise_for_status(get_session().get(address, headers=build_hf_headers(), timeout=PATIENCE))
    except GatedRepoError as error:
        raise DataError(
            f"Hugging Face gives '{repository}' only to who has asked for it",
            f"Ask on https://huggingface.co/datasets/{repository}, then log in: hf auth login.",
        ) from error
    except RepositoryNotFoundError as error:
        raise DataError(
            f"Hugging Face has no set '{repository}' for everybody", "Check the name; if it is private: hf auth login."
        ) from error
    except Exception as error:  # refused, timed out, no such host, a proxy's page: all the same to the user
        return _line(error)
    return None


def _refusal(error: Exception, repository: str, reason: str | None, instead: str) -> DataError:
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in causes):
        return DataError(f"no room for '{repository}' in Hugging Face's cache", "Make room, or set HF_HOME elsewhere.")
    if "Config name is missing" in str(error):
        names = re.findall(r"'([^']+)'", str(error).partition("configs:")[2].partition("]")[0])
        return DataError(
            f"'{repository}' has {len(names)} configurations",
            f"Add one of them after a slash, as in hf:{repository}/{names[0]}: {', '.join(names[:8])}.",
        )
    if reason is not None:
        return DataError(
            f"Hugging Face does not answer ({reason}) and its cache has no '{repository}'",
            instead or "Connect to a network, or give a folder of the set's parquet files: --data FOLDER.",
        )
    return DataError(f"cannot read '{repository}' ({_line(error)})", instead or "Check that it is a set of images.")


def _line(error: Exception) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:160].rstrip(".")


def _quiet() -> None:
    """The libraries' bars and remarks: the program shows one bar of its own."""
    import datasets
    import huggingface_hub.utils

    datasets.disable_progress_bars()
    huggingface_hub.utils.disable_progress_bars()
    for library in ("datasets", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.CRITICAL)


def _table_rows(table: Any) -> Rows:
    """Of a `datasets.Dataset`, which is mapped from its cache file."""

    def chunks(column: str, wanted: np.ndarray) -> Iterator[tuple[int, Any]]:
        start = 0
        for batch in table.data.table.select([column]).to_batches(max_chunksize=CHUNK):
            yield start, batch.column(0)
            start += len(batch)

    return Rows(len(table), table.features, chunks)
