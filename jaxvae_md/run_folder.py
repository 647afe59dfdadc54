"""A run on disk: a folder that one process works in, and in which nothing finished is lost.

DIR/config.yaml    the resolved options, never changed once the run began
DIR/checkpoints/   the state after each of the last steps, each committed by one rename
DIR/.lock          held by the process that works here; the system frees it when that ends

A folder gets its name only with its options and first checkpoint inside, so it can be resumed
from the moment it exists, and may be moved at any time when nobody works in it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from jaxvae_md import atomic
from jaxvae_md.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from jaxvae_md.errors import FileError, LockedError, OutputError, RunError

CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"
LOCK = ".lock"
_KEPT = 2
_DIGITS = 6
_log = logging.getLogger(__name__)


class RunFolder:
    """A folder of a run that this process has to itself; made by `create` or `opened`.

    `config` holds the options the run was started with.
    """

    def __init__(self, path: Path, kinds: tuple[str, ...], config: dict[str, Any]):
        self.path, self.config = path, config
        self._kinds, self._number = kinds, -1
        self._last: Checkpoint | None = None

    @property
    def kind(self) -> str:
        """The command that made the run; known once the last checkpoint has been read."""
        return self._kinds[0]

    @property
    def command(self) -> str:
        """The command that continues the run."""
        return f"jaxvae-md {self.kind} --resume {self.path}"

    def commit(self, name: str, tree: dict[str, Any], info: dict[str, Any]) -> None:
        """Makes a finished step permanent: arrays and JSON, under the step's name.

        **Raises:** `WriteError`; the steps before are then still there.
        """
        stamp = {"kind": self.kind, "config": self.config, "info": info}
        folder = self.path / CHECKPOINTS
        save_checkpoint(folder / f"{self._number + 1:06d}_{name}", tree, stamp)
        self._number += 1
        self._last = None
        self._prune()

    def last(
        self, usable: Callable[[dict[str, Any]], str | None] = lambda info: None
    ) -> Checkpoint:
        """The newest whole checkpoint; damaged ones are passed over with a warning.

        **Arguments:** `usable(info)` says what speaks against a checkpoint, None for nothing.
        **Raises:** `FileError` when none is left, when the run is of another kind, or when its
        options were edited.
        """
        if self._last is not None:
            return self._last
        reason = "none was there"
        checkpoints = _by_age(self.path / CHECKPOINTS)
        for folder in reversed(checkpoints):
            try:
                tree, stamp = load_checkpoint(folder)
            except FileError as error:
                reason = error.message
            else:
                self._check_same_run(stamp)
                reason = usable(stamp["info"]) if usable else None
                if reason is None:
                    self._number = int(folder.name[:_DIGITS])
                    self._last = Checkpoint(tree, stamp["info"])
                    if folder == checkpoints[-1]:
                        self._prune()
                    return self._last
            _log.warning("checkpoint %s: %s; the one before it is used", folder.name, reason)
        raise FileError(
            f"no whole checkpoint ({reason})",
            file=self.path,
            remedy=f"start again with --config {self.path / CONFIG} and another --out",
        )

    def _prune(self) -> None:
        """Removes checkpoints that are not needed any more, and what a kill left half written."""
        folder = self.path / CHECKPOINTS
        for old in (*_by_age(folder)[:-_KEPT], *folder.glob(".part-*")):
            shutil.rmtree(old, ignore_errors=True)

    def _check_same_run(self, stamp: dict[str, Any]) -> None:
        kind = stamp["kind"]
        if kind not in self._kinds:
            raise FileError(
                f"the folder holds a run of jaxvae-md {kind}, not of {' or '.join(self._kinds)}",
                file=self.path,
                remedy=f"jaxvae-md {kind} --resume {self.path} continues it",
            )
        self._kinds, self.config = (kind,), stamp["config"]
        path = self.path / CONFIG
        if not path.exists():
            _write_config(self.path, kind, self.config)
        elif path.read_bytes() != _config_text(kind, self.config).encode():
            raise FileError(
                "the options were edited after the run began",
                file=path,
                remedy="remove the file to continue with the run's own options, or start a new "
                f"run with --config {path}",
            )


def check_free(path: Path) -> None:
    """Raises `OutputError` when a folder cannot take a new run."""
    if path.exists() and not path.is_dir():
        raise OutputError("is a file", file=path, remedy="give a folder with --out")
    if path.is_dir() and any(path.iterdir()):
        remedy = "give another folder with --out, or remove this one"
        if (path / CONFIG).is_file():
            raise OutputError(
                "the folder holds another run",
                file=path,
                remedy=f"continue it with --resume {path}, or {remedy}",
            )
        raise OutputError("the folder is not empty", file=path, remedy=remedy)


@contextmanager
def create(
    path: str | Path,
    kind: str,
    config: dict[str, Any],
    tree: dict[str, Any],
    info: dict[str, Any],
    fill: Callable[[Path], None] = lambda path: None,
) -> Iterator[RunFolder]:
    """A new folder with options and first checkpoint inside, locked while the block runs.

    **Arguments:** `kind` is the command that can resume it; `config` plain types, for YAML; `tree`
    and `info` the first checkpoint; `fill(path)` may write further files before the folder
    appears. **Raises:** `OutputError`, `WriteError`.

    ```python
    with create("run", "md", {"steps": 100}, tree, {}) as folder:
        folder.commit("step", tree, {"done": 100})
    ```
    """
    path = Path(path)
    check_free(path)
    staging = path.with_name(f".new-{path.absolute().name}")
    with atomic.writing(path):
        staging.mkdir(parents=True, exist_ok=True)
    with _locked(staging, path):
        # what a killed start left behind
        _clear(staging)
        folder = RunFolder(staging, (kind,), config)
        try:
            _write_config(staging, kind, config)
            fill(staging)
            folder.commit("start", tree, info)
            check_free(path)
            with atomic.writing(path):
                os.rename(staging, path)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        folder.path = path
        with _resumable(folder):
            yield folder


@contextmanager
def opened(path: str | Path, *kinds: str) -> Iterator[RunFolder]:
    """The folder of an earlier run of one of these kinds, locked while the block runs.

    **Raises:** `FileError` for what is no run, `LockedError` while another process works in it.

    ```python
    with opened("run", "learn") as folder:
        tree, info = folder.last()
    ```
    """
    path = Path(path)
    remedy = f"give the folder of a run of jaxvae-md {' or '.join(kinds)}"
    if not path.is_dir():
        raise FileError("no such folder", file=path, remedy=remedy)
    if not (path / CHECKPOINTS).is_dir():
        raise FileError("the folder holds no run", file=path, remedy=remedy)
    with _locked(path, path):
        folder = RunFolder(path, kinds, {})
        with _resumable(folder):
            yield folder


@contextmanager
def _locked(folder: Path, path: Path) -> Iterator[None]:
    """Holds the folder's lock; `path` is what the user calls the folder."""
    with atomic.writing(folder / LOCK):
        file = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise LockedError(
                f"{file.read().strip() or 'another process'} is working in this folder",
                file=path,
                remedy="wait until it is done, or stop it",
            ) from None
        with atomic.writing(folder / LOCK):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        yield


@contextmanager
def _resumable(folder: RunFolder) -> Iterator[None]:
    """A run that fails or is interrupted says how to go on."""
    try:
        yield
    except RunError as error:
        hint = f"what was finished is kept; {folder.command} continues"
        remedy = f"{error.remedy}; {hint}" if error.remedy else hint
        raise type(error)(error.message, file=error.file, remedy=remedy) from error
    except KeyboardInterrupt as error:
        error.add_note(folder.command)
        raise


def _clear(folder: Path) -> None:
    for old in folder.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
        elif old.name != LOCK:
            old.unlink()


def _by_age(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{'[0-9]' * _DIGITS}_*"))


def _config_text(kind: str, config: dict[str, Any]) -> str:
    head = f"# jaxvae-md {kind} --config {CONFIG} --out OTHER repeats this run\n"
    return head + yaml.safe_dump(config, sort_keys=False)


def _write_config(folder: Path, kind: str, config: dict[str, Any]) -> None:
    atomic.write_text(folder / CONFIG, _config_text(kind, config))
