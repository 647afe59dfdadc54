"""The closed loop, as pure steps over a resumable state."""

from jaxvae_md.learn.config import Config as Config
from jaxvae_md.learn.loop import step as step
from jaxvae_md.learn.loop import steps as steps
from jaxvae_md.learn.state import State as State
from jaxvae_md.learn.state import start as start
