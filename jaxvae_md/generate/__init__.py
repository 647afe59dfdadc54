"""Structures for what the data lack: made by three routes, inverted, and selected."""

from jaxvae_md.generate.ascent import Raised as Raised
from jaxvae_md.generate.ascent import raise_novelty as raise_novelty
from jaxvae_md.generate.ascent import soft_novelty as soft_novelty
from jaxvae_md.generate.candidate import Candidate as Candidate
from jaxvae_md.generate.candidate import Setting as Setting
from jaxvae_md.generate.candidate import measure as measure
from jaxvae_md.generate.candidate import rejection as rejection
from jaxvae_md.generate.decode import Targets as Targets
from jaxvae_md.generate.decode import propose as propose
from jaxvae_md.generate.explore import Settled as Settled
from jaxvae_md.generate.explore import settle as settle
from jaxvae_md.generate.guard import Guard as Guard
from jaxvae_md.generate.guard import fit_guard as fit_guard
from jaxvae_md.generate.invert import Inverted as Inverted
from jaxvae_md.generate.invert import invert as invert
from jaxvae_md.generate.mix import MIX as MIX
from jaxvae_md.generate.mix import generate as generate
from jaxvae_md.generate.moves import KINDS as KINDS
from jaxvae_md.generate.moves import random_move as random_move
from jaxvae_md.generate.prepare import setting as setting
from jaxvae_md.generate.realise import Realised as Realised
from jaxvae_md.generate.realise import realise as realise
from jaxvae_md.generate.select import Selection as Selection
from jaxvae_md.generate.select import select as select
