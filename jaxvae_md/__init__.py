"""Closes the loop of interatomic potentials: what do the training data lack, and learn it.

The names below are imported when they are first used, so that `import jaxvae_md` is quick.
"""

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

from jaxvae_md.errors import UnsupportedJaxError as _UnsupportedJaxError

_WRONG_JAX = ("0.10.2",)
for _package in ("jax", "jaxlib"):
    if _version(_package) in _WRONG_JAX:
        raise _UnsupportedJaxError(
            f"{_package} {_version(_package)} computes wrong numbers on CPU (jax issue 39103)\n"
            "  remedy: pip install 'jax>=0.10.1,!=0.10.2,!=0.11.*'"
        )

if TYPE_CHECKING:
    from jaxvae_md import coverage as coverage
    from jaxvae_md import datasets as datasets
    from jaxvae_md import fit as fit
    from jaxvae_md import generate as generate
    from jaxvae_md import label as label
    from jaxvae_md import learn as learn
    from jaxvae_md import observables as observables
    from jaxvae_md import plot as plot
    from jaxvae_md import potentials as potentials
    from jaxvae_md import simulate as simulate
    from jaxvae_md import vae as vae
    from jaxvae_md.assessment import assess as assess
    from jaxvae_md.descriptors import chebyshev as chebyshev
    from jaxvae_md.descriptors import describe as describe
    from jaxvae_md.descriptors import fit_standardizer as fit_standardizer
    from jaxvae_md.generate import propose as propose
    from jaxvae_md.generate import realise as realise
    from jaxvae_md.io import read_frames as read_frames
    from jaxvae_md.model import load_model as load_model
    from jaxvae_md.model import save_model as save_model
    from jaxvae_md.neighbors import neighbor_list as neighbor_list
    from jaxvae_md.potentials import chebyshev_nn as chebyshev_nn
    from jaxvae_md.potentials import compose as compose
    from jaxvae_md.potentials import lennard_jones as lennard_jones
    from jaxvae_md.potentials import stillinger_weber as stillinger_weber
    from jaxvae_md.simulate import quench as quench
    from jaxvae_md.simulate import relax as relax
    from jaxvae_md.structure import from_atoms as from_atoms
    from jaxvae_md.structure import to_atoms as to_atoms
    from jaxvae_md.vae import train as train

_HOME = {
    "assess": "assessment",
    "chebyshev": "descriptors",
    "describe": "descriptors",
    "fit_standardizer": "descriptors",
    "propose": "generate",
    "realise": "generate",
    "read_frames": "io",
    "load_model": "model",
    "save_model": "model",
    "neighbor_list": "neighbors",
    "chebyshev_nn": "potentials",
    "compose": "potentials",
    "lennard_jones": "potentials",
    "stillinger_weber": "potentials",
    "quench": "simulate",
    "relax": "simulate",
    "from_atoms": "structure",
    "to_atoms": "structure",
    "train": "vae",
}
_MODULES = (
    "coverage",
    "datasets",
    "fit",
    "generate",
    "label",
    "learn",
    "observables",
    "plot",
    "potentials",
    "simulate",
    "vae",
)

__version__ = "0.1.0"
__all__ = [*_HOME, *_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"jaxvae_md.{_HOME[name]}"), name)
    if name in _MODULES:
        return import_module(f"jaxvae_md.{name}")
    raise AttributeError(f"module 'jaxvae_md' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
