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
import shlex
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from jaxvae_md import atomic
from jaxvae_md.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from jaxvae_md.errors import (
    FileError,
    LockedError,
    MovedError,
    NewerFormatError,
    OptionError,
    OutputError,
    RunError,
    SimulationError,
)

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

    def __init__(
        self,
        path: Path,
        kinds: tuple[str, ...],
        config: dict[str, Any],
        lock: int | None,
        read_only: bool = False,
        again: str = "",
    ):
        self.path, self.config, self._lock, self._read_only = path, config, lock, read_only
        self._again = again
        self._kinds, self._number = kinds, -1
        self._last: Checkpoint | None = None

    @property
    def kind(self) -> str:
        """The command that made the run; known once the last checkpoint has been read."""
        return self._kinds[0]

    @property
    def command(self) -> str:
        """What continues the run: a command, or `again`."""
        if self._again:
            return self._again
        words = ["jaxvae-md", self.kind, "--resume", str(self.path)]
        labeller = str(self.config.get("labeller", ""))
        # code is only imported when it is named on the command line
        words += ["--labeller", labeller] if ":" in labeller else []
        return shlex.join(words)

    def commit(self, name: str, tree: dict[str, Any], info: dict[str, Any]) -> None:
        """Makes a finished step permanent: arrays and JSON, under the step's name.

        **Raises:** `WriteError`, `MovedError`; the steps before are then still there.
        """
        self.check_in_place()
        stamp = {"kind": self.kind, "config": self.config, "info": info, "x64": _x64()}
        folder = self.path / CHECKPOINTS
        save_checkpoint(folder / f"{self._number + 1:0{_DIGITS}d}_{name}", tree, stamp)
        self._number += 1
        self._last = None
        self._prune()

    def check_in_place(self) -> None:
        """Raises `MovedError` when the path leads elsewhere by now: nothing is to be written."""
        if self._lock is not None and not _is_open_file(self.path / LOCK, self._lock):
            raise MovedError(
                "the folder was moved or removed while this process worked in it",
                file=self.path,
                remedy="what was finished is in it, wherever it is: resume it there",
            )

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
            except NewerFormatError:
                raise
            except FileError as error:
                reason = error.message
            else:
                self._check_same_run(stamp)
                reason = usable(stamp["info"])
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
        if self._read_only:
            return
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
        if stamp["x64"] != _x64():
            raise OptionError(
                f"the run computes in {'float64' if stamp['x64'] else 'float32'}, and this "
                "process does not",
                file=self.path,
                remedy=f'jax.config.update("jax_enable_x64", {stamp["x64"]})',
            )
        self._kinds, self.config = (kind,), stamp["config"]
        path = self.path / CONFIG
        if not path.exists():
            if not self._read_only:
                _write_config(self.path, kind, self.config)
        elif _read_config(path) != self.config:
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
    target = path.resolve()
    if target == Path.cwd() or target in Path.cwd().parents or os.path.ismount(target):
        raise OutputError(
            "a run replaces its folder, which the current one and mounted ones do not allow",
            file=path,
            remedy=f"give a new folder inside it: --out {path / 'run'}",
        )
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
    again: str = "",
) -> Iterator[RunFolder]:
    """A new folder with options and first checkpoint inside, locked while the block runs.

    **Arguments:** `kind` is the command that can resume it; `config` plain types, for YAML; `tree`
    and `info` the first checkpoint; `fill(path)` may write further files before the folder
    appears; `again` says how to go on where no command does. **Raises:** `OutputError`,
    `WriteError`.

    ```python
    with create("run", "md", {"steps": 100}, tree, {}) as folder:
        folder.commit("step", tree, {"done": 100})
    ```
    """
    path = Path(path)
    with _staging(path) as (staging, lock):
        folder = RunFolder(staging, (kind,), config, lock, again=again)
        with _appearing(staging, path):
            _write_config(staging, kind, config)
            fill(staging)
            folder.commit("start", tree, info)
        folder.path = path
        with _resumable(folder):
            yield folder


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to write into that gets its name when the block ends well, and goes otherwise.

    **Raises:** `OutputError` when there is something already, `LockedError` while another process
    makes the same folder, `WriteError`.

    ```python
    with new_folder("coverage-of-md") as folder:
        (folder / "verdict.txt").write_text(sentence)
    ```
    """
    path = Path(path)
    with _staging(path) as (staging, _):
        with _appearing(staging, path):
            yield staging
        (path / LOCK).unlink()


@contextmanager
def opened(
    path: str | Path, *kinds: str, read_only: bool = False, again: str = ""
) -> Iterator[RunFolder]:
    """The folder of an earlier run of one of these kinds, locked while the block runs.

    **Arguments:** `read_only` changes nothing in it, and lets others read too; `again` as in
    `create`. **Raises:** `FileError` for what is no run, `LockedError` while another process works
    in it.

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
    with _locked(path, path, shared=read_only) as lock:
        folder = RunFolder(path, kinds, {}, lock, read_only, again)
        with nullcontext() if read_only else _resumable(folder):
            yield folder


@contextmanager
def _staging(path: Path) -> Iterator[tuple[Path, int | None]]:
    """An empty hidden folder beside a free path, and its lock, held while the block runs."""
    check_free(path)
    target = path.resolve()
    staging = target.with_name(f".new-{target.name}")
    with atomic.writing(path):
        staging.mkdir(parents=True, exist_ok=True)
    with _locked(staging, path) as lock:
        # what a killed start left behind
        _clear(staging)
        yield staging, lock


@contextmanager
def _appearing(staging: Path, path: Path) -> Iterator[None]:
    """Gives the staged folder its name when the block ends well, and removes it otherwise."""
    try:
        yield
        check_free(path)
        with atomic.writing(path):
            os.rename(staging, path.resolve())
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


@contextmanager
def _locked(folder: Path, path: Path, shared: bool = False) -> Iterator[int | None]:
    """Holds the folder's lock, the open file; `path` is what the user calls the folder."""
    lock = folder / LOCK
    if shared and not lock.exists():
        # a copy of a run, which nobody works in
        yield None
        return
    with atomic.writing(lock):
        file = os.open(lock, os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(file, 200).decode(errors="replace").strip()
            raise LockedError(
                f"{owner or 'another process'} is working in this folder",
                file=path,
                remedy="wait until it is done, or stop it",
            ) from None
        except OSError as error:
            raise OutputError(
                f"cannot be locked ({error.strerror})",
                file=path,
                remedy="choose a folder on a file system that has locks",
            ) from error
        if not _is_open_file(lock, file):
            raise LockedError(
                "another process has just begun a run here", file=path, remedy="try again"
            )
        if not shared:
            # who it is, for the message above; the lock holds without it
            with suppress(OSError):
                os.ftruncate(file, 0)
                os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield file
    finally:
        os.close(file)


def _is_open_file(path: Path, file: int) -> bool:
    """Whether the path still leads to the open file: it may have been moved or removed since."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


@contextmanager
def _resumable(folder: RunFolder) -> Iterator[None]:
    """A run that fails or is interrupted says how to go on."""
    try:
        yield
    except (SimulationError, MovedError):
        raise
    except RunError as error:
        hint = f"what was finished is kept; {folder.command} continues"
        remedy = f"{error.remedy}; {hint}" if error.remedy else hint
        where = {"file": error.file, "frame": error.frame, "atom": error.atom}
        raise type(error)(error.message, **where, remedy=remedy) from error
    except KeyboardInterrupt as error:
        error.add_note(folder.command)
        raise


def _clear(folder: Path) -> None:
    for old in folder.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
        elif old.name != LOCK:
            old.unlink()


def _x64() -> bool:
    import jax

    return jax.dtypes.canonicalize_dtype(np.float64) == np.float64


def _by_age(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{'[0-9]' * _DIGITS}_*"))


def _write_config(folder: Path, kind: str, config: dict[str, Any]) -> None:
    # frames that came from Python and not from a file must be given again
    given = " DATA" if config.get("data", "") is None else "" if kind != "md" else " RUN START"
    head = f"# jaxvae-md {kind}{given} --config {CONFIG} --out OTHER repeats this run\n"
    atomic.write_text(folder / CONFIG, head + yaml.safe_dump(config, sort_keys=False))


def _read_config(path: Path) -> Any:
    """None for what is no YAML."""
    try:
        return yaml.safe_load(path.read_bytes())
    except (OSError, ValueError, yaml.YAMLError):
        return None
