"""The closed loop, as pure steps over a resumable state."""

from jaxvae_md.learn.config import FINE as FINE
from jaxvae_md.learn.config import Config as Config
from jaxvae_md.learn.loop import FIT_STAGES as FIT_STAGES
from jaxvae_md.learn.loop import STAGES as STAGES
from jaxvae_md.learn.loop import next_round as next_round
from jaxvae_md.learn.loop import step as step
from jaxvae_md.learn.loop import steps as steps
from jaxvae_md.learn.state import State as State
from jaxvae_md.learn.state import start as start
