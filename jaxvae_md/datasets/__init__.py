"""Data sets that come with the package."""

from jaxvae_md.datasets.silicon import silicon as silicon
