"""Structures for what the data lack: gaps decoded, and realised as atoms."""

from jaxvae_md.generate.decode import Targets as Targets
from jaxvae_md.generate.decode import propose as propose
from jaxvae_md.generate.realise import Realised as Realised
from jaxvae_md.generate.realise import realise as realise
from jaxvae_md.generate.select import Selection as Selection
from jaxvae_md.generate.select import select as select
from jaxvae_md.generate.invert import Inverted as Inverted
from jaxvae_md.generate.invert import invert as invert
