"""Many labels at once, through any executor of concurrent.futures."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from jaxvae_md import atomic
from jaxvae_md._typing import Labeller
from jaxvae_md.errors import InputError, LabelError, LabellerError, OptionError, WriteError
from jaxvae_md.label.answer import Label, asked, attached
from jaxvae_md.label.store import fingerprint, store_label, stored_labels

if TYPE_CHECKING:
    from ase import Atoms

_LOOK = 0.2
"""seconds between looks at what runs"""
_JUDGED_FROM = 5
"""structures, before which no share of failures says anything"""


class Rejected(NamedTuple):
    """A structure without a label."""

    frame: int
    reason: str


class Labelled(NamedTuple):
    """Copies of the structures that have labels, and the others."""

    frames: list[Atoms]
    rejected: list[Rejected]


def label_many(
    frames: Sequence[Atoms],
    labeller: Labeller,
    path: str | Path | None,
    executor: Executor,
    *,
    num_workers: int | None = None,
    time_limit: float = np.inf,
    num_retries: int = 1,
    largest_force: float = 50.0,
    failure_rate: float = 0.2,
    progress: bool = False,
) -> Labelled:
    """Labels structures side by side; what is finished is stored at once and never made again.

    A structure whose label does not converge, is not finite, or has a force beyond `largest_force`
    (eV / angstrom) is set apart with the reason, after so many retries where the labeller failed.
    Copies of the structures name the labeller's `reference`, if it has one, in `info`.

    **Arguments:** `path` of the file of labels, for one process at a time; None for a labeller that
    is `remembered`; an `executor` of
    threads, processes, Dask, Parsl or mpi4py, which is given `num_workers` structures at a time,
    by default as many as it says that it has workers, or else as there are CPUs; `time_limit` in
    seconds for each. Whoever exceeds it keeps its worker, and to leave the executor's `with` block
    is to wait for it: a labeller with a limit of its own, as `Espresso`, is better. **Raises:**
    `LabelError` as soon as more than `failure_rate` of five or more structures have failed, where
    all workers hang, and where the executor fails; what was labelled is kept. `WriteError`.

    ```python
    with ThreadPoolExecutor(2) as executor:
        frames, rejected = label_many(structures, Espresso(), "labels.jsonl", executor)
    ```
    """
    known_workers = getattr(executor, "_max_workers", None) or os.cpu_count() or 1
    workers = known_workers if num_workers is None else num_workers
    options = {
        "num_workers": (workers, workers >= 1),
        "time_limit": (time_limit, time_limit > 0),
        "num_retries": (num_retries, num_retries >= 0),
        "largest_force": (largest_force, largest_force > 0),
        "failure_rate": (failure_rate, 0 <= failure_rate <= 1),
    }
    for name, (value, right) in options.items():
        if not right:
            raise OptionError(f"{name} is {value}", remedy="give a positive number, a rate up to 1")
    reference = getattr(labeller, "reference", None)
    known: dict[str, Label] = {}
    if path is not None:
        # a labeller may change the current folder; who cannot write shall know before it computes
        path = Path(path).absolute()
        with atomic.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        known = stored_labels(path, reference)
    names = [fingerprint(atoms) for atoms in frames]
    by_name = dict(zip(names, frames, strict=True))
    failed: dict[str, str] = {}
    tries: Counter[str] = Counter()
    running: dict[Future[Label], str] = {}
    hanging: dict[Future[Label], str] = {}
    began: dict[Future[Label], float] = {}

    def keep(name: str, future: Future[Label]) -> None:
        """Stores the label. **Raises:** whatever the future has in its place."""
        known[name] = future.result()
        if path is not None:
            store_label(path, name, known[name], reference)
        failed.pop(name, None)
        bar.update()

    def judge(name: str, reason: str) -> None:
        failed[name] = reason
        judged = len(failed.keys() | known.keys() & by_name.keys())
        if judged >= _JUDGED_FROM and len(failed) > failure_rate * judged:
            raise LabelError(
                f"{len(failed)} of {judged} structures have no label; the last, "
                f"{names.index(name)}: {reason}",
                remedy="look at the reference; what it labelled is kept, and the same call goes on",
            )

    def finish(name: str, future: Future[Label]) -> None:
        try:
            keep(name, future)
        except LabellerError as error:
            if tries[name] <= num_retries:
                todo.append(name)
            else:
                judge(name, error.message)
        except InputError as error:
            judge(name, error.message)
        except WriteError:
            raise
        # what the labeller raised is an InputError: this is not its own
        except Exception as error:
            raise LabelError(
                f"the executor failed ({type(error).__name__}: {error})",
                remedy="a worker may have ended, or the labeller cannot be sent to another process "
                "(use threads); what was labelled is kept",
            ) from error
        else:
            reason = _absurd(known[name], largest_force)
            if reason is not None:
                judge(name, reason)

    todo = deque(name for name in by_name if name not in known)
    absurd = {n: _absurd(known[n], largest_force) for n in by_name if n in known}
    bar = tqdm(
        total=len(by_name),
        initial=len(by_name) - len(todo),
        desc="label",
        unit="frame",
        disable=not progress,
    )
    try:
        for name, reason in absurd.items():
            if reason is not None:
                judge(name, reason)
        while todo or running:
            while todo and len(running) + len(hanging) < workers:
                name = todo.popleft()
                tries[name] += 1
                future = executor.submit(asked, labeller, by_name[name])
                running[future], began[future] = name, time.monotonic()
            if not running:
                raise LabelError(
                    f"no worker is free: all of them hang for more than {time_limit:g} s",
                    remedy="look at the reference; what it labelled is kept",
                )
            done, _ = wait([*running, *hanging], timeout=_LOOK, return_when="FIRST_COMPLETED")
            for future in done:
                finish((running if future in running else hanging).pop(future), future)
            for future in [f for f in running if time.monotonic() - began[f] > time_limit]:
                hanging[future] = running.pop(future)
                judge(hanging[future], f"not ready after {time_limit:g} s")
    finally:
        # what runs when it stops is paid for already
        left = {future: name for future, name in running.items() if not future.cancel()}
        for future in wait(left, timeout=time_limit if np.isfinite(time_limit) else None).done:
            with contextlib.suppress(Exception):
                keep(left[future], future)
        bar.close()
    out, rejected = [], []
    for number, (atoms, name) in enumerate(zip(frames, names, strict=True)):
        if name in failed:
            rejected.append(Rejected(number, failed[name]))
            continue
        copy = attached(atoms, known[name])
        if reference is not None:
            copy.info["reference"] = reference
        out.append(copy)
    return Labelled(out, rejected)


def _absurd(label: Label, largest: float) -> str | None:
    """What is wrong with the forces, None where nothing is."""
    found = float(np.abs(label.forces).max(initial=0.0))
    return f"a force of {found:.3g} eV/angstrom, beyond {largest:g}" if found > largest else None
