"""Generation: three routes to structures that the data lack, behind one function and archive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Float

from jaxvae_md._typing import Array
from jaxvae_md.errors import OptionError
from jaxvae_md.generate.ascent import ascend
from jaxvae_md.generate.candidate import (
    BAND,
    MAX_RESIDUAL,
    REPEATED,
    Candidate,
    Setting,
    check,
    measure,
    plausible,
)
from jaxvae_md.generate.decode import decode
from jaxvae_md.generate.explore import explore

MIX = {"explore": 0.9, "decode": 0.1, "ascent": 0.0}
"""shares of the routes"""
_OVERSAMPLING = {"explore": 3, "decode": 3, "ascent": 2}
"""candidates for each structure that is wanted"""
_ATTEMPTS = (
    *(("explore", 1), ("decode", 1), ("ascent", 1)),
    *(("explore", 1), ("explore", 2), ("decode", 2), ("explore", 4), ("decode", 4), ("ascent", 4)),
)
"""routes in turn, and how many times the usual candidates; the first of each has its share"""


def generate(
    setting: Setting,
    key: Array,
    num: int,
    mix: Mapping[str, float] = MIX,
    *,
    band: tuple[float, float] = BAND,
    max_residual: float = MAX_RESIDUAL,
) -> list[Candidate]:
    """`num` structures whose central environment the data lack, and those that were rejected.

    **Explore** changes training structures by a move (remove atoms, insert one, rotate a bond,
    cleave or strain the cell), quenches them and simulates for a moment. Most of its defects
    survive a quench, and their labels are worth most: ten of them take a fifth to two fifths from
    the force error of what silicon data lacked. **Decode** asks the VAE for latent points near
    what exploring visited whose decoded descriptor is new, and realises them. It always finds
    something, also where the data hold a melt and few moves lead anywhere new; but in a crystal
    its labels are worth no more than those of plain MD. **Ascent** raises the novelty of one atom
    by its gradient; so does it, and in a crystal the atoms fall back in a quench. Hence nine
    tenths of exploring, one of decoding, which also makes what exploring did not find, and
    nothing of ascent.

    Every structure is measured again, and rejected with a reason when the novelty of its center
    is not within `band`, when a pair or the energy is not what the guard allows, or when the
    request is not met within `max_residual`. What was accepted counts as known for the next:
    nothing is made twice. Accepted ones (`error == 0`) come first, `num` at most.

    **Arguments:** `mix` the share of each route; `band` novelty in units of d95.
    **Raises:** `OptionError` for a mix, number, band or guard that is none; `SpeciesError` and
    `GeometryError` for training structures, naming the frame.

    ```python
    made = [c for c in generate(setting, jax.random.key(0), num=10) if not c.error]
    ```
    """
    if not 0 <= band[0] < band[1]:
        raise OptionError(f"band is {band}", remedy="give two novelties, the smaller first")
    check(setting, num)
    wanted = _split(num, mix, can_decode=setting.model is not None)
    accepted: list[Candidate] = []
    rejected: list[Candidate] = []
    archive: list[Float[np.ndarray, "n f"]] = []
    # exploring comes first, since it also shows where simulations go; it tries again for what is
    # missing, with more candidates each time, and what it cannot find is decoded
    for number, (route, effort) in enumerate(_ATTEMPTS):
        count = wanted.get(route, 0) if number < len(_ROUTES) else num - len(accepted)
        if not count or route not in wanted:
            continue
        key_of_route = jax.random.fold_in(key, number)
        num_candidates = effort * _OVERSAMPLING[route] * count
        candidates = _ROUTES[route](setting, key_of_route, num_candidates, band)
        if not candidates:
            continue
        measured, z = measure(setting, candidates, band, max_residual)
        if route == "explore":
            setting = setting._replace(visited=plausible(measured, z))
        picks = _pick(setting, measured, z, archive, count, band[0])
        accepted += [measured[i] for i in picks]
        sound = {i for i, one in enumerate(measured) if not one.error}
        repeated = sound - set(picks) if len(picks) < count else set()
        rejected += [
            one._replace(error=one.error | (REPEATED if i in repeated else 0))
            for i, one in enumerate(measured)
            if one.error or i in repeated
        ]
    return accepted + rejected


def _split(num: int, mix: Mapping[str, float], can_decode: bool) -> dict[str, int]:
    """How many structures each route with a share is asked for, by largest remainders."""
    possible = {route for route in MIX if can_decode or route != "decode"}
    shares = {route: share for route, share in mix.items() if share and route in possible}
    total = sum(shares.values())
    if set(mix) - set(MIX) or min(shares.values(), default=0) < 0 or not 0 < total < np.inf:
        remedy = f"give shares of {', '.join(sorted(possible))}, 0 or more"
        raise OptionError(f"mix is {dict(mix)}", remedy=remedy)
    exact = {route: num * share / total for route, share in shares.items()}
    out = {route: int(value) for route, value in exact.items()}
    by_remainder = sorted(exact, key=lambda route: out[route] - exact[route])
    for route in by_remainder[: num - sum(out.values())]:
        out[route] += 1
    return out


def _pick(
    setting: Setting,
    candidates: Sequence[Candidate],
    z: Sequence[Float[np.ndarray, "n f"]],
    archive: list[Float[np.ndarray, "n f"]],
    num: int,
    apart: float,
) -> list[int]:
    """Greedily the sound ones farthest from data, archive and each other, `apart` at least."""
    left = [i for i, one in enumerate(candidates) if not one.error]
    novelty = {i: candidates[i].novelty for i in left}
    scale = float(setting.known.d95)

    def see(known: Float[np.ndarray, "n f"]) -> None:
        for i in left:
            center = z[i][candidates[i].center]
            novelty[i] = min(novelty[i], np.linalg.norm(known - center, axis=1).min() / scale)

    for known in archive:
        see(known)
    picks: list[int] = []
    while left and len(picks) < num:
        best = max(left, key=lambda i: novelty[i])
        if novelty[best] < apart:
            break
        left.remove(best)
        picks.append(best)
        archive.append(z[best])
        see(z[best])
    return picks


_ROUTES: dict[str, Callable[..., list[Candidate]]] = {
    "explore": explore,
    "decode": decode,
    "ascent": ascend,
}
