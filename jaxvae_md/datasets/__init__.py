"""Data sets that come with the package."""

from jaxvae_md.datasets.silicon import silicon as silicon
from jaxvae_md.datasets.silicon import silicon_dft as silicon_dft
from jaxvae_md.datasets.silicon import silicon_dft_held_out as silicon_dft_held_out
