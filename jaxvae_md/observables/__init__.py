"""Observables of structures and of trajectories.

Those called soft are differentiable in positions, cell and parameters; histograms are exact, and
made on the host.
"""

from jaxvae_md.observables.angular import angular_distribution as angular_distribution
from jaxvae_md.observables.diffusion import Diffusion as Diffusion
from jaxvae_md.observables.diffusion import diffusion_coefficient as diffusion_coefficient
from jaxvae_md.observables.diffusion import green_kubo_diffusion as green_kubo_diffusion
from jaxvae_md.observables.diffusion import mean_squared_displacement as mean_squared_displacement
from jaxvae_md.observables.diffusion import velocity_autocorrelation as velocity_autocorrelation
from jaxvae_md.observables.elasticity import elastic_constants as elastic_constants
from jaxvae_md.observables.equation_of_state import EquationOfState as EquationOfState
from jaxvae_md.observables.equation_of_state import equation_of_state as equation_of_state
from jaxvae_md.observables.histograms import Histogram as Histogram
from jaxvae_md.observables.histograms import adf_histogram as adf_histogram
from jaxvae_md.observables.histograms import rdf_histogram as rdf_histogram
from jaxvae_md.observables.local_structure import BCC as BCC
from jaxvae_md.observables.local_structure import FCC as FCC
from jaxvae_md.observables.local_structure import HCP as HCP
from jaxvae_md.observables.local_structure import OTHER as OTHER
from jaxvae_md.observables.local_structure import STRUCTURES as STRUCTURES
from jaxvae_md.observables.local_structure import centrosymmetry as centrosymmetry
from jaxvae_md.observables.local_structure import coordination as coordination
from jaxvae_md.observables.local_structure import local_structure as local_structure
from jaxvae_md.observables.profile import Film as Film
from jaxvae_md.observables.profile import density_profile as density_profile
from jaxvae_md.observables.profile import film as film
from jaxvae_md.observables.radial import radial_distribution as radial_distribution
from jaxvae_md.observables.thermodynamics import kinetic_energy as kinetic_energy
from jaxvae_md.observables.thermodynamics import pressure as pressure
from jaxvae_md.observables.thermodynamics import stress as stress
from jaxvae_md.observables.thermodynamics import temperature as temperature
