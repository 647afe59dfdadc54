"""Typed errors, and the error bits that jitted code returns instead of raising.

Input errors name the file, the frame, the atom and the remedy. Inside jit nothing can be raised:
functions return an integer of error bits beside their result, and host code calls `check`.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

NEIGHBOR_OVERFLOW = 1
NOT_FINITE = 2
NOT_CONVERGED = 4
ILL_CONDITIONED = 8
STALE_NEIGHBORS = 16
TOO_CLOSE = 32

_MEANING = {
    NEIGHBOR_OVERFLOW: "the neighbor list overflowed; allocate it again with more capacity",
    NOT_FINITE: "a value is not finite; look at the input, or take a smaller step",
    NOT_CONVERGED: "the minimiser did not converge; allow more steps or start closer",
    ILL_CONDITIONED: "the minimum is flat or a saddle, so its implicit derivative is not "
    "determined; add damping or a tether, or fix atoms",
    STALE_NEIGHBORS: "an atom moved further than half the skin; allocate the neighbor list again "
    "from the result and repeat, or take a larger skin",
    TOO_CLOSE: "two atoms are closer than physical",
}


class JaxvaeError(Exception):
    """Base of everything this package raises on purpose: what is wrong, where, and what to do.

    **Arguments:** `message` what is wrong; `file`, `frame` (from 0) and `atom` (from 0) where;
    `remedy` what to do about it.

    ```python
    raise GeometryError("two atoms at the same place", file="a.extxyz", frame=3, atom=7,
                        remedy="remove one of them")
    ```
    """

    def __init__(
        self,
        message: str,
        *,
        file: Any = None,
        frame: int | None = None,
        atom: int | None = None,
        remedy: str | None = None,
    ) -> None:
        self.message, self.remedy = message, remedy
        self.file, self.frame, self.atom = file, frame, atom
        where = [
            f"{name} {value}"
            for name, value in (("file", file), ("frame", frame), ("atom", atom))
            if value is not None
        ]
        text = f"{', '.join(where)}: {message}" if where else message
        super().__init__(f"{text}\n  remedy: {remedy}" if remedy else text)

    def at(self, *, file: Any = None, frame: int | None = None) -> Self:
        """The same error with more said about where it is; what it knew itself stays.

        An error that knows its file is not about a frame of another one.
        """
        frame = frame if self.frame is None and self.file is None else self.frame
        return type(self)(
            self.message,
            file=file if self.file is None else self.file,
            frame=frame,
            atom=self.atom,
            remedy=self.remedy,
        )


class UnsupportedJaxError(JaxvaeError, ImportError):
    """The installed JAX is known to compute wrong numbers."""


class RunError(JaxvaeError, RuntimeError):
    """A run failed; what it had finished is kept."""


class WriteError(RunError):
    """A file could not be written: the disk is full, say. What was there before is kept."""


class MovedError(RunError):
    """The folder of a run was moved or removed while the run worked in it."""


class SimulationError(RunError):
    """A simulation blew up: continued, it would do so again at the same step."""


class InputError(JaxvaeError, ValueError):
    """Bad input."""


class FileError(InputError):
    """A file is missing, unreadable or empty."""


class NewerFormatError(FileError):
    """A file was written by a newer version of this package."""


class LabelError(InputError):
    """Energies or forces are missing, not finite, or of another reference."""


class LabellerError(LabelError):
    """A labeller failed, rather than gave no label: asked again it may not."""


class SpeciesError(InputError):
    """A chemical element that the model, the data or the labeller does not know."""


class GeometryError(InputError):
    """A singular cell, a position that is not finite, or two atoms at the same place."""


class OutputError(InputError):
    """The output folder cannot be used."""


class LockedError(OutputError):
    """Another process works in the folder."""


class OptionError(InputError):
    """An option has a value that cannot work."""


def check(error: Any, what: str = "result") -> None:
    """Raises `RunError` when any error bit is set.

    **Arguments:** `error` integer bits of any shape (an array is combined), as returned beside
    the results of jitted functions; `what` names the result in the message.

    ```python
    check(result.error, "realised structures")
    ```
    """
    bits = int(np.bitwise_or.reduce(np.asarray(error, dtype=np.int64), axis=None))
    if bits:
        reasons = "; ".join(text for bit, text in _MEANING.items() if bits & bit)
        reasons = reasons or f"unknown error bits {bits}"
        raise RunError(f"{what}: {reasons}")
