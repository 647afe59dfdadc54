"""Many labels at once, through any executor of concurrent.futures."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import Executor, Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from jaxvae_md._typing import Labeller
from jaxvae_md.errors import InputError, LabelError, OptionError
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
    path: str | Path,
    executor: Executor,
    *,
    time_limit: float = np.inf,
    num_retries: int = 1,
    largest_force: float = 50.0,
    failure_rate: float = 0.2,
    progress: bool = False,
) -> Labelled:
    """Labels structures side by side; what is finished is stored at once and never made again.

    A structure whose label does not converge, is not finite, or has a force beyond `largest_force`
    (eV / angstrom) is set apart with the reason, after so many retries where the labeller raised.
    Copies of the structures name the labeller's `reference`, if it has one, in `info`.

    **Arguments:** `path` of the file of labels; an `executor` of threads, processes, Dask, Parsl
    or mpi4py; `time_limit` in seconds for a structure that runs: the executor's worker stays with
    it, for threads cannot be ended. **Raises:** `LabelError` as soon as more than `failure_rate`
    of five or more structures have failed, and where all workers hang; what was labelled is kept.

    ```python
    with ThreadPoolExecutor(2) as executor:
        frames, rejected = label_many(structures, Espresso(), "labels.jsonl", executor)
    ```
    """
    if not (time_limit > 0 and num_retries >= 0 and 0 <= failure_rate <= 1 and largest_force > 0):
        raise OptionError(
            f"time_limit {time_limit}, num_retries {num_retries}, failure_rate {failure_rate}, "
            f"largest_force {largest_force}",
            remedy="give a positive time and force, retries from 0 on, and a share up to 1",
        )
    path, reference = Path(path), getattr(labeller, "reference", None)
    known = stored_labels(path, reference)
    names = [fingerprint(atoms) for atoms in frames]
    failed: dict[int, str] = {}
    tries: dict[int, int] = {}
    waiting: dict[Future[Label], int] = {}
    began: dict[Future[Label], float] = {}
    missing = [n for n, name in enumerate(names) if name not in known]
    # the same structure twice is computed once
    first = {names[n]: n for n in reversed(missing)}

    def submit(number: int) -> None:
        tries[number] = tries.get(number, 0) + 1
        waiting[executor.submit(asked, labeller, frames[number])] = number

    def keep(future: Future[Label]) -> None:
        """Stores its label. **Raises:** `InputError` where it has none."""
        answer, name = future.result(), names[waiting[future]]
        _check_forces(answer, largest_force)
        store_label(path, name, answer, reference)
        known[name] = answer
        bar.update()

    def reject(number: int, reason: str) -> None:
        failed[number] = reason
        judged = len(first) - sum(number not in failed for number in waiting.values())
        if judged >= _JUDGED_FROM and len(failed) > failure_rate * judged:
            raise LabelError(
                f"{len(failed)} of {judged} structures have no label; the last, number {number}: "
                f"{reason}",
                remedy="look at the reference; what it labelled is kept, and the same call goes on",
            )

    bar = tqdm(
        total=len(frames),
        initial=len(frames) - len(missing),
        desc="label",
        unit="frame",
        disable=not progress,
    )
    try:
        for number in sorted(first.values()):
            submit(number)
        last_end = time.monotonic()
        while waiting:
            done, _ = wait(waiting, timeout=_LOOK, return_when="FIRST_COMPLETED")
            now = time.monotonic()
            for future in done:
                last_end = now
                try:
                    keep(future)
                except InputError as error:
                    number = waiting.pop(future)
                    # what the labeller raised may be a matter of the moment
                    if tries[number] <= num_retries and error.__cause__ is not None:
                        submit(number)
                    else:
                        reject(number, error.message)
                else:
                    del waiting[future]
            for future in [f for f in waiting if f.running()]:
                began.setdefault(future, now)
                if now - began[future] > time_limit:
                    reject(waiting.pop(future), f"not ready after {time_limit:g} s")
            idle = now - max([last_end, *began.values()])
            if waiting and idle > time_limit and not any(f.running() for f in waiting):
                raise LabelError(
                    f"no worker is free: all hang for more than {time_limit:g} s",
                    remedy="look at the reference; what it labelled is kept",
                )
    finally:
        # what runs when it stops is paid for already
        left = [future for future in waiting if not future.cancel()]
        for future in wait(left, timeout=time_limit if np.isfinite(time_limit) else None).done:
            with contextlib.suppress(InputError):
                keep(future)
        bar.close()
    out, rejected = [], []
    for number, (atoms, name) in enumerate(zip(frames, names, strict=True)):
        if name in known:
            copy = attached(atoms, known[name])
            if reference is not None:
                copy.info["reference"] = reference
            out.append(copy)
        else:
            rejected.append(Rejected(number, failed[first[name]]))
    return Labelled(out, rejected)


def _check_forces(label: Label, largest: float) -> None:
    found = float(np.abs(label.forces).max(initial=0.0))
    if found > largest:
        raise LabelError(
            f"a force of {found:.3g} eV/angstrom, beyond {largest:g}",
            remedy="leave the structure out, or allow more",
        )
