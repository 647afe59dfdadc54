"""aenet's fingerprint setups (.stp) for the Chebyshev basis."""

from __future__ import annotations

import re
from pathlib import Path

from jaxvae_md.descriptors.chebyshev import Chebyshev, chebyshev
from jaxvae_md.errors import FileError, InputError

_CUTOFFS, _ORDERS = ("radial_Rc", "angular_Rc"), ("radial_N", "angular_N")


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
        if {"symmfunc", "functions"} & {*keywords}:
            raise ValueError("symmetry functions, and not the Chebyshev basis")
        env, basis = (_only(keywords, name) for name in ("env", "basis"))
        species = _species(lines, env)
        values = [i for i, line in enumerate(lines) if i > basis and "=" in line]
        known = {env, basis, *range(env + 1, env + 1 + len(species)), *values}
        for i, keyword in enumerate(keywords):
            if i not in known and keyword not in ("atom", "rmin"):
                raise ValueError(f"unknown keyword {lines[i].split()[0]!r}")
        settings = " ".join([lines[basis], *(lines[i] for i in values)])
        kind = _value(settings, "type").lower()
        if kind != "chebyshev":
            raise ValueError(f"the basis is {kind}, not Chebyshev")
        radial_cutoff, angular_cutoff = (_cutoff(settings, name) for name in _CUTOFFS)
        radial_order, angular_order = (int(_value(settings, name)) for name in _ORDERS)
    except ValueError as error:
        raise FileError(
            f"no complete fingerprint setup: {error}",
            file=path,
            remedy="give a .stp file with ENV and BASIS type=Chebyshev",
        ) from None
    try:
        return chebyshev(species, radial_cutoff, radial_order, angular_cutoff, angular_order)
    except InputError as error:
        raise error.at(file=path) from None


def _lines(text: str) -> list[str]:
    """What is neither blank nor comment nor description."""
    text = re.sub(r"^\s*descr\b.*?^\s*end descr\b[^\n]*", "", text, flags=re.I | re.M | re.S)
    lines = [re.split("[#!%]", line)[0].strip() for line in text.splitlines()]
    return [line for line in lines if line]


def _only(keywords: list[str], name: str) -> int:
    """Where the keyword is, which must be there once."""
    if keywords.count(name) != 1:
        raise ValueError(f"{name.upper()} is there {keywords.count(name)} times")
    return keywords.index(name)


def _species(lines: list[str], env: int) -> list[str]:
    """The elements below ENV."""
    from ase.data import chemical_symbols

    _, *count = lines[env].split()
    if len(count) != 1:
        raise ValueError("ENV is followed by one number, and a line for each element")
    species = [line.split()[0] for line in lines[env + 1 : env + 1 + int(count[0])]]
    for symbol in species:
        if symbol not in chemical_symbols[1:]:
            raise ValueError(f"{symbol!r} is no element")
    if len(species) != int(count[0]):
        raise ValueError(f"{count[0]} elements, and {len(species)} lines for them")
    return species


def _value(settings: str, name: str) -> str:
    """The word after `name =`."""
    found = re.search(rf"\b{name}\s*=\s*([^\s,]+)", settings, flags=re.I)
    if found is None:
        raise ValueError(f"{name} is missing")
    return found[1]


def _cutoff(settings: str, name: str) -> float:
    """A number as Fortran writes it: 8.0d0."""
    value = _value(settings, name)
    return float(re.sub(r"(?<=[\d.])[dD](?=[-+\d])", "e", value))
