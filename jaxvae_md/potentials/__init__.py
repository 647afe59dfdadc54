"""Interatomic potentials, one file each; all are tuples of pure functions."""

from jaxvae_md.potentials.atomic_energy import atomic_energy as atomic_energy
from jaxvae_md.potentials.atomic_energy import fit_atomic_energy as fit_atomic_energy
from jaxvae_md.potentials.chebyshev_nn import chebyshev_nn as chebyshev_nn
from jaxvae_md.potentials.committee import Committee as Committee
from jaxvae_md.potentials.committee import committee as committee
from jaxvae_md.potentials.compose import compose as compose
from jaxvae_md.potentials.eam import ZHOU as ZHOU
from jaxvae_md.potentials.eam import eam_zhou as eam_zhou
from jaxvae_md.potentials.lennard_jones import lennard_jones as lennard_jones
from jaxvae_md.potentials.lennard_jones import pair_energy as pair_energy
from jaxvae_md.potentials.potential import Embedding as Embedding
from jaxvae_md.potentials.potential import Evaluation as Evaluation
from jaxvae_md.potentials.potential import Potential as Potential
from jaxvae_md.potentials.potential import Radial as Radial
from jaxvae_md.potentials.potential import energy_and_forces as energy_and_forces
from jaxvae_md.potentials.potential import energy_forces_stress as energy_forces_stress
from jaxvae_md.potentials.potential import potential as potential
from jaxvae_md.potentials.potential import stress as stress
from jaxvae_md.potentials.setfl import Setfl as Setfl
from jaxvae_md.potentials.setfl import eam as eam
from jaxvae_md.potentials.setfl import read_setfl as read_setfl
from jaxvae_md.potentials.stillinger_weber import stillinger_weber as stillinger_weber
from jaxvae_md.potentials.tersoff import MUNETOH as MUNETOH
from jaxvae_md.potentials.tersoff import read_tersoff as read_tersoff
from jaxvae_md.potentials.tersoff import tersoff as tersoff
