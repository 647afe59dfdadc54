"""Figures of the data, the VAE, the potential and the dynamics.

Every function takes plain numpy arrays and returns a `matplotlib.figure.Figure`; nothing is shown
and pyplot is never touched, so a figure is written with `figure.savefig` or `report.save_figure`.
Labels wear the Okabe-Ito colours and a marker of their own, densities wear viridis. What is not
finite, or lies outside the axes of a parity plot, is not dropped silently: a note counts it.
"""

from jaxvae_md.plot.coverage import calibration as calibration
from jaxvae_md.plot.coverage import coverage_by_frame as coverage_by_frame
from jaxvae_md.plot.coverage import coverage_map as coverage_map
from jaxvae_md.plot.dynamics import Run as Run
from jaxvae_md.plot.dynamics import radial_distribution as radial_distribution
from jaxvae_md.plot.dynamics import side_by_side as side_by_side
from jaxvae_md.plot.dynamics import simulation as simulation
from jaxvae_md.plot.environments import decoded as decoded
from jaxvae_md.plot.environments import distributions as distributions
from jaxvae_md.plot.environments import latent_map as latent_map
from jaxvae_md.plot.environments import maps as maps
from jaxvae_md.plot.environments import reconstruction as reconstruction
from jaxvae_md.plot.growth import Snapshot as Snapshot
from jaxvae_md.plot.growth import film as film
from jaxvae_md.plot.growth import film_movie as film_movie
from jaxvae_md.plot.learning import learning_curves as learning_curves
from jaxvae_md.plot.potential import pair_potential as pair_potential
from jaxvae_md.plot.potential import parity as parity
from jaxvae_md.plot.potential import training_history as training_history
from jaxvae_md.plot.style import BLACK as BLACK
from jaxvae_md.plot.style import BLUE as BLUE
from jaxvae_md.plot.style import COLORS as COLORS
from jaxvae_md.plot.style import GREEN as GREEN
from jaxvae_md.plot.style import ORANGE as ORANGE
from jaxvae_md.plot.style import PURPLE as PURPLE
from jaxvae_md.plot.style import SKY as SKY
from jaxvae_md.plot.style import VERMILION as VERMILION
from jaxvae_md.plot.style import YELLOW as YELLOW
