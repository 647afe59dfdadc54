"""Lennard-Jones argon, the cheapest solid that can be simulated."""

import numpy as np

from jaxvae_md.potentials import lennard_jones
from jaxvae_md.structure import Structure
from tests import systems

CUTOFF = 6.0
SIGMA, EPSILON = 3.4, 0.0103
ARGON = lennard_jones(("Ar",), CUTOFF, SIGMA, EPSILON)
PARAMS = ARGON.init(None)
MASS = 39.948


def crystal(times=(2, 2, 2), rattle: float = 0.0) -> Structure:
    """A face-centred cubic crystal of four atoms a cell."""
    sites = 2.65 * np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    whole = systems.repeated(systems.make(sites, 5.3 * np.eye(3)), times)
    return systems.make(whole.position, whole.cell, rattle=rattle)
