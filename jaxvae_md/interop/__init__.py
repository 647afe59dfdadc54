"""The package's potentials in other programs: ASE calculators, and jax_md's pairs of functions."""

from jaxvae_md.interop.ase_calculator import PotentialCalculator as PotentialCalculator
from jaxvae_md.interop.jax_md_pair import jax_md_pair as jax_md_pair
