"""Files that only grow, and can be cut back to what was known of them at some moment."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import NamedTuple

from jaxvae_md import atomic

_BLOCK = 1 << 20


class Mark(NamedTuple):
    """A file's content up to some moment; plain numbers, for JSON."""

    length: int
    """bytes"""
    checksum: int
    """CRC-32"""


def append(path: Path, text: str, mark: Mark | None) -> Mark:
    """Writes text behind the mark, whatever was there before, and returns the new mark.

    **Raises:** `WriteError` when the disk is full, say; the old mark is then still good.

    ```python
    mark = append(path, "step,temperature\\n", None)
    mark = append(path, "0,300\\n", mark)
    ```
    """
    content = text.encode()
    length, checksum = mark or Mark(0, 0)
    with atomic.writing(path), open(path, "ab") as file:
        file.truncate(length)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return Mark(length + len(content), zlib.crc32(content, checksum))


def is_intact(path: Path, mark: Mark) -> bool:
    """Whether the file still begins with all that the mark knows."""
    if not path.is_file() or path.stat().st_size < mark.length:
        return False
    checksum, left = 0, mark.length
    with open(path, "rb") as file:
        while left:
            block = file.read(min(left, _BLOCK))
            checksum, left = zlib.crc32(block, checksum), left - len(block)
    return checksum == mark.checksum
