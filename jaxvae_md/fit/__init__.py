"""Fits of potentials by gradient descent: to frames, to averages, and through simulations."""

from jaxvae_md.fit.discrepancy import energy_distance as energy_distance
from jaxvae_md.fit.discrepancy import fisher_discrepancy as fisher_discrepancy
from jaxvae_md.fit.discrepancy import maximum_mean_discrepancy as maximum_mean_discrepancy
from jaxvae_md.fit.environments import environment_matching as environment_matching
from jaxvae_md.fit.forces import Labelled as Labelled
from jaxvae_md.fit.forces import Prediction as Prediction
from jaxvae_md.fit.forces import force_matching as force_matching
from jaxvae_md.fit.forces import predict as predict
from jaxvae_md.fit.forces import prepare as prepare
from jaxvae_md.fit.forces import residuals as residuals
from jaxvae_md.fit.forces import terms_of as terms_of
from jaxvae_md.fit.influence import answer as answer
from jaxvae_md.fit.influence import ascend as ascend
from jaxvae_md.fit.influence import held_out_direction as held_out_direction
from jaxvae_md.fit.influence import influence as influence
from jaxvae_md.fit.influence import predicted_change as predicted_change
from jaxvae_md.fit.minimum import Reference as Reference
from jaxvae_md.fit.minimum import least_squares as least_squares
from jaxvae_md.fit.optimisers import relative as relative
from jaxvae_md.fit.result import FitResult as FitResult
from jaxvae_md.fit.reweighting import Ensemble as Ensemble
from jaxvae_md.fit.reweighting import averages as averages
from jaxvae_md.fit.reweighting import reweighting as reweighting
from jaxvae_md.fit.reweighting import sample as sample
from jaxvae_md.fit.reweighting import weights as weights
from jaxvae_md.fit.trajectory import through_trajectory as through_trajectory
