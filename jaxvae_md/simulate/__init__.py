"""Molecular dynamics and relaxation."""

from jaxvae_md.simulate.barostat import npt_langevin as npt_langevin
from jaxvae_md.simulate.engine import Simulator as Simulator
from jaxvae_md.simulate.engine import State as State
from jaxvae_md.simulate.engine import Trajectory as Trajectory
from jaxvae_md.simulate.engine import advance as advance
from jaxvae_md.simulate.engine import masses as masses
from jaxvae_md.simulate.engine import nve as nve
from jaxvae_md.simulate.engine import nvt_langevin as nvt_langevin
from jaxvae_md.simulate.engine import nvt_nose_hoover as nvt_nose_hoover
from jaxvae_md.simulate.engine import rollout as rollout
from jaxvae_md.simulate.engine import temperature as temperature
from jaxvae_md.simulate.loop import Chunk as Chunk
from jaxvae_md.simulate.loop import begin as begin
from jaxvae_md.simulate.loop import chunks as chunks
from jaxvae_md.simulate.loop import run as run
from jaxvae_md.simulate.quench import quench as quench
from jaxvae_md.simulate.relax import Relaxed as Relaxed
from jaxvae_md.simulate.relax import relax as relax
