"""Molecular dynamics and relaxation."""

from jaxvae_md.simulate.advance import advance as advance
from jaxvae_md.simulate.barostat import npt_langevin as npt_langevin
from jaxvae_md.simulate.engine import Simulator as Simulator
from jaxvae_md.simulate.engine import State as State
from jaxvae_md.simulate.engine import Trajectory as Trajectory
from jaxvae_md.simulate.engine import masses as masses
from jaxvae_md.simulate.engine import nve as nve
from jaxvae_md.simulate.engine import nvt_langevin as nvt_langevin
from jaxvae_md.simulate.engine import nvt_nose_hoover as nvt_nose_hoover
from jaxvae_md.simulate.engine import temperature as temperature
from jaxvae_md.simulate.loop import Chunk as Chunk
from jaxvae_md.simulate.loop import begin as begin
from jaxvae_md.simulate.loop import chunks as chunks
from jaxvae_md.simulate.loop import run as run
from jaxvae_md.simulate.quench import quench as quench
from jaxvae_md.simulate.relax import Relaxed as Relaxed
from jaxvae_md.simulate.relax import relax as relax
from jaxvae_md.simulate.rollout import Adjoint as Adjoint
from jaxvae_md.simulate.rollout import rollout as rollout
from jaxvae_md.simulate.sensitivity import HorizonWarning as HorizonWarning
from jaxvae_md.simulate.sensitivity import Sensitivity as Sensitivity
from jaxvae_md.simulate.sensitivity import horizon as horizon
from jaxvae_md.simulate.sensitivity import value_and_grad as value_and_grad
from jaxvae_md.simulate.sensitivity import warn_past_horizon as warn_past_horizon
