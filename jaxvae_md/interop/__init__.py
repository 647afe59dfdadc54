"""The package's potentials in other programs, and theirs here: ASE, jax_md and LAMMPS."""

from jaxvae_md.interop.ase_calculator import PotentialCalculator as PotentialCalculator
from jaxvae_md.interop.jax_md_pair import jax_md_pair as jax_md_pair
from jaxvae_md.interop.jax_md_potential import from_jax_md as from_jax_md
from jaxvae_md.interop.lammps import lammps_lennard_jones as lammps_lennard_jones
from jaxvae_md.interop.lammps import write_lammps_data as write_lammps_data
from jaxvae_md.interop.lammps_dump import read_lammps_dump as read_lammps_dump
