"""aenet's fingerprint setups (.stp) for the Chebyshev basis."""

from __future__ import annotations

import re
from pathlib import Path

from jaxvae_md.descriptors.chebyshev import Chebyshev, chebyshev
from jaxvae_md.errors import FileError, InputError

_NUMBERS = ("radial_Rc", "radial_N", "angular_Rc", "angular_N")


def read_aenet_setup(path: str | Path) -> Chebyshev:
    """The descriptor that a fingerprint setup of aenet describes.

    Its species are those of ENV, in that order, which also decides their weights, as in aenet.
    ATOM and RMIN do not enter: a setup for every element of the same ENV gives the same
    descriptor. **Raises:** `FileError` for another basis or an incomplete file. **Source:** the
    format as read by aenet 2.0 (`sfsetup.f90`).

    ```python
    descriptor = read_aenet_setup("Ti.fingerprint.stp")
    ```
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise FileError(
            f"cannot be read ({error.strerror})", file=path, remedy="give a .stp file of aenet"
        ) from None
    lines = _lines(text)
    keywords = [line.split()[0].lower() for line in lines]
    try:
        at = keywords.index("env")
        num_species = int(lines[at].split()[1])
        species = [line.split()[0] for line in lines[at + 1 : at + 1 + num_species]]
        at = keywords.index("basis")
        settings = " ".join(lines[at : at + 1 + len(_NUMBERS)])
        kind = _value(settings, "type")
        numbers = [_value(settings, name) for name in _NUMBERS] if kind == "chebyshev" else []
        # Fortran writes 0.75d0
        cutoffs = [float(number.replace("d", "e")) for number in numbers[::2]]
        orders = [int(number) for number in numbers[1::2]]
    except (ValueError, IndexError) as error:
        raise FileError(
            f"no complete fingerprint setup ({error})",
            file=path,
            remedy="give a .stp file with ENV and BASIS type=Chebyshev",
        ) from None
    if kind != "chebyshev":
        raise FileError(
            f"the basis is {kind}, not Chebyshev",
            file=path,
            remedy="give a .stp file with BASIS type=Chebyshev",
        )
    try:
        return chebyshev(species, cutoffs[0], orders[0], cutoffs[1], orders[1])
    except InputError as error:
        raise error.at(file=path) from None


def _lines(text: str) -> list[str]:
    """What is neither blank nor comment nor description."""
    text = re.sub(r"^\s*descr\b.*?^\s*end descr\b[^\n]*", "", text, flags=re.I | re.M | re.S)
    lines = [re.split("[#!%]", line)[0].strip() for line in text.splitlines()]
    return [line for line in lines if line]


def _value(settings: str, name: str) -> str:
    """The lower-case word after `name =`."""
    found = re.search(rf"\b{name}\s*=\s*(\S+)", settings, flags=re.I)
    if found is None:
        raise ValueError(f"{name} is missing")
    return found[1].lower()
