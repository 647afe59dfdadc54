"""Candidates of plain simulations with the current potential, from cold to molten."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from jaxvae_md._typing import Array
from jaxvae_md.generate.candidate import Candidate, Setting, rng_of
from jaxvae_md.generate.explore import settle
from jaxvae_md.neighbors import host_pairs
from jaxvae_md.structure import Structure

CLOSEST = 0.72
"""nearest-neighbor distances; atoms that are nearer come of a potential that fails"""
_NO_QUENCH = (0, 0, 0)
"""as many parts as a quench of exploring has, so that both share a program"""


class Heating(NamedTuple):
    """How `simulated` simulates."""

    temperature: tuple[float, float] = (600.0, 3000.0)
    """K, of the coldest and the hottest simulation; those between are evenly apart. The first part
    begins at twice of it, which a crystal's springs take up; one from a melt is too hot for it"""
    num_starts: int = 6
    num_frames: int = 4
    """of each simulation"""
    num_steps: int = 150
    """from one frame to the next, with new velocities at each: Andersen's thermostat"""


HEATING = Heating()
"""the usual one"""


def simulated(setting: Setting, key: Array, heating: Heating = HEATING) -> list[Candidate]:
    """Frames of simulations of training structures, as long as the potential keeps them whole.

    A simulation ends where two atoms come nearer than 0.72 nearest-neighbor distances, or where an
    atom has more neighbors than a fifth above those of the start: there may be fewer frames.

    **Source:** Andersen, J. Chem. Phys. 72, 2384 (1980).

    ```python
    frames = [c.structure for c in simulated(setting, jax.random.key(0))]
    ```
    """
    start = rng_of(key).integers(len(setting.training), size=heating.num_starts)
    now = [setting.training[i] for i in start]
    kelvin = np.linspace(*heating.temperature, heating.num_starts)
    size = 1 + max(len(structure.position) for structure in setting.training)
    whole = np.ones(len(now), bool)
    out = []
    for part in range(heating.num_frames):
        settled = settle(
            setting.potential,
            setting.params,
            now,
            # `settle` begins at twice of it
            kelvin if part == 0 else kelvin / 2,
            jax.random.fold_in(key, part),
            quench_steps=_NO_QUENCH,
            md_steps=heating.num_steps,
            num_atoms=size,
        )
        after, bits = settled.stages[-1], settled.error[-1]
        whole &= [
            not error and _is_whole(structure, setting.nearest_distance)
            for structure, error in zip(after, bits, strict=True)
        ]
        now = [new if w else old for new, old, w in zip(after, now, whole, strict=True)]
        out += [
            Candidate(now[i], -1, int(start[i]), "simulate", "heat", None)
            for i in np.nonzero(whole)[0]
        ]
    return out


def _is_whole(structure: Structure, nearest_distance: float) -> bool:
    return not len(host_pairs(structure, CLOSEST * nearest_distance)[0])
