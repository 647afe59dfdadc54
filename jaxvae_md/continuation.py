"""A training that an interrupt only delays: the same call goes on where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae_md._typing import Array
from jaxvae_md.checkpoint import MANIFEST, load_checkpoint, save_checkpoint
from jaxvae_md.errors import OptionError

T = TypeVar("T")
Row = tuple[Any, ...]
"""what is noted of an epoch: arrays and numbers"""
_EPOCHS_BETWEEN = 10


class Continuation:
    """How far a training is, kept in a folder every ten epochs; nowhere where there is none.

    `settings` (JSON) and `data` (a tree of arrays) are what the training follows from, beside its
    `key`: the checkpoint of another one is refused.

    ```python
    kept = Continuation("training", [num_epochs], key, (params, x))
    made, rows = kept.restored((params, state))
    kept.keep(made, rows)  # after every epoch
    kept.remove()  # at the end
    ```
    """

    def __init__(self, folder: str | Path | None, settings: list[Any], key: Array, data: Any):
        self._place = None if folder is None else Path(folder)
        self._mark = ""
        if self._place is not None:
            digest = hashlib.sha256(json.dumps(settings).encode())
            digest.update(str(jax.tree.structure(data)).encode())
            for leaf in jax.tree.leaves((jax.random.key_data(key), data)):
                array = np.asarray(leaf)
                digest.update(f"{array.dtype.str} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
            self._mark = digest.hexdigest()

    def restored(self, start: T) -> tuple[T, list[Row]]:
        """Where the interrupted training was, and its rows; else the start and none.

        **Raises:** `OptionError` for the checkpoint of another training; `FileError` for a damaged
        one.
        """
        # without its manifest it is what a kill left of one that was being removed
        if self._place is None or not (self._place / MANIFEST).exists():
            return start, []
        found = load_checkpoint(self._place)
        if found.info.get("training") != self._mark:
            raise OptionError(
                f"{self._place} is the checkpoint of another training",
                remedy="give the same data, key and options, or another folder",
            )
        leaves, structure = jax.tree.flatten(start)
        if found.info["shapes"] != _shapes(leaves):
            raise OptionError(
                f"{self._place} is the checkpoint of another optimiser",
                remedy="give the same one, or another folder",
            )
        leaves = [jnp.asarray(found.tree[f"leaf_{i}"]) for i in range(len(leaves))]
        columns = [found.tree[f"history_{i}"] for i in range(found.info["columns"])]
        rows = list(zip(*columns, strict=True))
        return jax.tree.unflatten(structure, leaves), rows

    def keep(self, made: Any, rows: Sequence[Row]) -> None:
        """Notes where the training is, after every tenth row. **Raises:** `WriteError`."""
        if self._place is None or len(rows) % _EPOCHS_BETWEEN:
            return
        tree = {f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(made))}
        columns = [np.array(column) for column in zip(*rows, strict=True)]
        tree |= {f"history_{i}": column for i, column in enumerate(columns)}
        info = {"training": self._mark, "columns": len(columns)}
        save_checkpoint(self._place, tree, info | {"shapes": _shapes(jax.tree.leaves(made))})

    def remove(self) -> None:
        """At the end of the training nothing is left of it."""
        if self._place is not None:
            # first what makes it a checkpoint
            (self._place / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(self._place, ignore_errors=True)


def _shapes(leaves: Sequence[Any]) -> list[list[int]]:
    return [list(np.shape(leaf)) for leaf in leaves]
