"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jaxvae_md.errors import WriteError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path that takes the file's place when all went well, and goes otherwise.

    **Raises:** `WriteError` when it cannot be written; an older file is then left as it was.

    ```python
    with replacing("metrics.jsonl") as temporary:
        temporary.write_text(lines)
    ```
    """
    path = Path(path)
    # the ending stays: it decides whether ASE compresses, and what numpy calls the file
    temporary = path.with_name(f".part-{path.name}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            flush(temporary)
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Errors of the operating system within become a `WriteError` that names the file."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"cannot be written ({error.strerror or error})",
            file=path,
            remedy="make room on the disk, or choose a folder that can be written",
        ) from error


def flush(path: Path) -> None:
    """Returns when the file's content is on the disk; only then may it be counted on."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file (UTF-8), whole or not at all. **Raises:** `WriteError`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes a file, whole or not at all. **Raises:** `WriteError`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
