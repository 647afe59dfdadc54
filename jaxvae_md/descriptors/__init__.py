"""Descriptors of atomic environments: the kernel, whole data sets, and their standardisation."""

from jaxvae_md.descriptors.chebyshev import Chebyshev as Chebyshev
from jaxvae_md.descriptors.chebyshev import chebyshev as chebyshev
from jaxvae_md.descriptors.describe import describe as describe
from jaxvae_md.descriptors.standardize import Standardizer as Standardizer
from jaxvae_md.descriptors.standardize import fit_standardizer as fit_standardizer
