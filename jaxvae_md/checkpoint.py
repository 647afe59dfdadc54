"""Checkpoints: a nested dict of arrays in a folder, of which every bit is accounted for.

Orbax writes the arrays and restores a flipped bit silently, so a manifest with the SHA-256 of
every file, and of itself, is written last. The folder gets its name only then.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
import types
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvae_md import atomic
from jaxvae_md.errors import FileError, NewerFormatError, WriteError

MANIFEST = "manifest.json"
_FORMAT = 1
_EMPTY, _LIKE = "shape_of_empty", "type_of_empty"


class Checkpoint(NamedTuple):
    """What a checkpoint holds."""

    tree: dict[str, Any]
    """nested dict of numpy arrays"""
    info: dict[str, Any]
    """JSON beside the arrays"""


def save_checkpoint(
    folder: str | Path, tree: dict[str, Any], info: dict[str, Any] | None = None
) -> None:
    """Saves a nested dict of arrays and some JSON; an older checkpoint of that name is replaced.

    **Raises:** `WriteError` when it cannot be written, the disk being full, say.

    ```python
    save_checkpoint("run/checkpoints/vae", {"params": params}, {"stage": "vae"})
    ```
    """
    import orbax.checkpoint as ocp

    folder = Path(folder).absolute()
    temporary = folder.with_name(f".part-{folder.name}")
    with atomic.writing(folder):
        temporary.parent.mkdir(parents=True, exist_ok=True)
        _clear(temporary)
        try:
            _check_room(temporary, tree)
            with _interrupts_later(), ocp.PyTreeCheckpointer() as checkpointer:
                checkpointer.save(temporary, tree)
        except ValueError as error:
            _clear(temporary)
            # tensorstore has no other type for what the operating system refuses
            raise WriteError(
                f"cannot be written ({error})", file=folder, remedy="make room on the disk"
            ) from error
        body = {
            "format": _FORMAT,
            "info": info or {},
            "files": digests(temporary, _contents(temporary)),
        }
        text = json.dumps(body, indent=1, allow_nan=False)
        atomic.write_text(temporary / MANIFEST, f"{_digest(text.encode())}\n{text}")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Loads what `save_checkpoint` saved, as numpy arrays, after checking every digest.

    **Raises:** `FileError` when a file is missing, foreign or altered.

    ```python
    params = load_checkpoint("run/checkpoints/vae").tree["params"]
    ```
    """
    import orbax.checkpoint as ocp

    folder = Path(folder).absolute()
    body = _read_manifest(folder)
    expected, found = body["files"], digests(folder, _contents(folder))
    altered = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if altered:
        raise _damaged(folder, f"{altered[0]} is missing or was altered after it was written")
    with _interrupts_later(), ocp.PyTreeCheckpointer() as checkpointer:
        restored = checkpointer.restore(folder, restore_args=None)
    return Checkpoint(_as_numpy(restored), body["info"])


def digests(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of files by their path in a folder.

    ```python
    digests(Path("run"), [Path("run/model.npz")])["model.npz"]
    ```
    """
    return {str(path.relative_to(folder)): _digest(path.read_bytes()) for path in sorted(files)}


def to_tree(value: Any) -> Any:
    """Named tuples, tuples and dicts of arrays as nested dicts of arrays, without what is None.

    ```python
    save_checkpoint("run/checkpoints/vae", to_tree(state))
    ```
    """
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        absent = lambda v: v is None or (isinstance(v, dict) and not v)
        return {k: to_tree(v) for k, v in value.items() if not absent(v)}
    if isinstance(value, tuple):
        return {f"item_{i}": to_tree(v) for i, v in enumerate(value)}
    value = np.asarray(value)
    # Orbax does not save arrays without elements
    return value if value.size else {_EMPTY: np.array(value.shape), _LIKE: np.zeros(1, value.dtype)}


def from_tree(kind: Any, tree: Any) -> Any:
    """What `to_tree` made nested dicts of, for the type it was.

    ```python
    state = from_tree(State, load_checkpoint("run/checkpoints/vae").tree)
    ```
    """
    if isinstance(tree, dict) and _EMPTY in tree:
        return np.zeros(tree[_EMPTY], tree[_LIKE].dtype)
    if isinstance(kind, types.UnionType):
        kind = _member(typing.get_args(kind), tree)
    if typing.get_origin(kind) is tuple and isinstance(tree, dict):
        inner = typing.get_args(kind)[0]
        return tuple(from_tree(inner, tree[f"item_{i}"]) for i in range(len(tree)))
    if hasattr(kind, "_fields"):
        hints = typing.get_type_hints(kind)
        absent = {name: None for name in kind._fields if name not in kind._field_defaults}
        return kind(**absent | {name: from_tree(hints[name], part) for name, part in tree.items()})
    if isinstance(tree, dict):
        return {name: from_tree(None, part) for name, part in tree.items()}
    return tree


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """An interrupt waits for the end: Orbax leaves a broken event loop when it comes between."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


def _member(kinds: tuple[Any, ...], tree: Any) -> Any:
    """The member of a union whose fields are in the tree; the first where none has fields."""
    fitting = (k for k in kinds if hasattr(k, "_fields") and set(tree) <= set(k._fields))
    fields = lambda k: len(k._fields)
    return min(fitting, key=fields, default=kinds[0]) if isinstance(tree, dict) else kinds[0]


def _check_room(temporary: Path, tree: dict[str, Any]) -> None:
    """Raises `OSError` on a full disk, where Orbax's threads would fail with words of their own."""
    import jax

    temporary.mkdir()
    try:
        with open(temporary / "room", "wb") as file:
            for leaf in jax.tree.leaves(tree):
                file.write(bytes(np.asarray(leaf).nbytes))
            file.flush()
            os.fsync(file.fileno())
    finally:
        shutil.rmtree(temporary)


def _clear(temporary: Path) -> None:
    """Removes what an earlier attempt left, Orbax's own temporary folders too."""
    for old in temporary.parent.iterdir():
        if old.name == temporary.name or old.name.startswith(f"{temporary.name}.orbax"):
            shutil.rmtree(old, ignore_errors=True)


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        digest, _, text = (folder / MANIFEST).read_bytes().partition(b"\n")
    except OSError as error:
        raise _damaged(folder, f"no readable checkpoint ({error.strerror})") from None
    if digest != _digest(text).encode():
        raise _damaged(folder, f"{MANIFEST} was altered after it was written")
    body = json.loads(text)
    if body["format"] > _FORMAT:
        raise NewerFormatError(
            f"written by a newer jaxvae_md (format {body['format']}, this one reads {_FORMAT})",
            file=folder,
            remedy="pip install --upgrade jaxvae_md",
        )
    return body


def _contents(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST]


def _damaged(folder: Path, message: str) -> FileError:
    return FileError(message, file=folder, remedy="use an earlier checkpoint")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _as_numpy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _as_numpy(value) for key, value in tree.items()}
    return np.asarray(tree)
