"""Descriptors of atomic environments: the kernel, whole data sets, and what they mean."""

from jaxvae_md.descriptors.aenet_setup import read_aenet_setup as read_aenet_setup
from jaxvae_md.descriptors.chebyshev import Chebyshev as Chebyshev
from jaxvae_md.descriptors.chebyshev import chebyshev as chebyshev
from jaxvae_md.descriptors.describe import describe as describe
from jaxvae_md.descriptors.distributions import Distributions as Distributions
from jaxvae_md.descriptors.distributions import distributions as distributions
from jaxvae_md.descriptors.perturb import perturbed as perturbed
from jaxvae_md.descriptors.standardize import Span as Span
from jaxvae_md.descriptors.standardize import Standardizer as Standardizer
from jaxvae_md.descriptors.standardize import fit_span as fit_span
from jaxvae_md.descriptors.standardize import fit_standardizer as fit_standardizer
