"""A learned model: potential, coverage and VAE in one file, for Python, ASE and jax_md."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxvae_md import coverage as coverage_score
from jaxvae_md._typing import Array, Params
from jaxvae_md.architecture import Architecture
from jaxvae_md.atomic import replacing
from jaxvae_md.checkpoint import from_tree, to_tree
from jaxvae_md.coverage import CoverageModel
from jaxvae_md.descriptors import Standardizer
from jaxvae_md.errors import FileError, NewerFormatError, OptionError
from jaxvae_md.neighbors import NeighborList
from jaxvae_md.options import as_plain, from_plain
from jaxvae_md.potentials import Potential
from jaxvae_md.potentials.committee import Spread
from jaxvae_md.structure import Structure

if TYPE_CHECKING:
    from ase import Atoms

    from jaxvae_md.interop import PotentialCalculator

MODEL = "model.npz"
"""name of the file in the folder of a run"""
_FORMAT = 1
_HEADER = "header"


@dataclass(frozen=True)
class Model:
    """What `jaxvae-md learn` and `fit` leave, and `load_model` gives back."""

    architecture: Architecture
    standardizer: Standardizer
    params: Params
    """of the potential"""
    coverage: CoverageModel
    vae_params: Params = None
    """None after a plain fit"""
    info: dict[str, Any] = field(default_factory=dict)
    """JSON: held-out errors and whatever else belongs beside a model"""

    @property
    def species(self) -> tuple[str, ...]:
        """The elements that the model knows."""
        return self.architecture.species

    @property
    def potential(self) -> Potential:
        """Pure functions; energy is `potential.energy(params, structure, neighbors)`."""
        return self.architecture.full(self.standardizer)

    @property
    def reach(self) -> float:
        """Cutoff (angstrom) of the neighbor list that `novelty` needs."""
        return coverage_score.reach(
            self.architecture.descriptor, self.architecture.nearest_distance
        )

    def novelty(self, structure: Structure, neighbors: NeighborList) -> Array:
        """Coverage score of every atom, `[n]`: above `coverage.threshold` it is outside the data.

        Under jit and differentiable; the list must cover `reach`.

        ```python
        score = model.novelty(structure, neighbor_list(model.reach).allocate(structure))
        ```
        """
        y = coverage_score.surroundings_of(
            self.architecture.descriptor,
            self.standardizer,
            self.architecture.nearest_distance,
            structure,
            neighbors,
        )
        return coverage_score.score(self.coverage, y)

    def spread(self, structure: Structure, neighbors: NeighborList) -> Spread:
        """How much the members of a committee differ; the list must cover `potential.cutoff`.

        **Raises:** `OptionError` for a model of one network (`num_members: 4` in the options of
        `learn` and `fit` makes four).

        ```python
        uncertain = model.spread(structure, neighbors).forces
        ```
        """
        committee = self.architecture.committee(self.standardizer)
        if committee is None:
            raise OptionError(
                "the model has no committee", remedy="fit one with the option num_members: 4"
            )
        return committee.spread(self.params["network"], structure, neighbors)

    def calculator(self) -> PotentialCalculator:
        """An ASE calculator: energy, forces, stress, and the novelty of each atom.

        Enable float64 in JAX for relaxations and long dynamics.

        ```python
        atoms.calc = load_model("run/model.npz").calculator()
        atoms.get_forces(), atoms.calc.get_property("novelty", atoms)
        ```
        """
        from jaxvae_md.interop import PotentialCalculator

        return PotentialCalculator(self.potential, self.params, self.novelty, self.reach)

    def jax_md(self, atoms: Atoms, skin: float = 0.5) -> tuple[Any, Callable]:
        """A jax_md (neighbor_fn, energy_fn) pair for the species and cell of `atoms`.

        ```python
        neighbor_fn, energy_fn = model.jax_md(atoms)
        neighbors = neighbor_fn.allocate(position)
        energy_fn(position, neighbor=neighbors)
        ```
        """
        from jaxvae_md.interop import jax_md_pair

        return jax_md_pair(self.potential, self.params, atoms, skin)


def save_model(path: str | Path, model: Model) -> None:
    """Writes a model as one .npz file: arrays, and a JSON header. **Raises:** `WriteError`.

    ```python
    save_model("silicon.npz", model)
    ```
    """
    parts = {"standardizer": model.standardizer, "params": model.params}
    parts |= {"coverage": model.coverage, "vae_params": model.vae_params}
    # in one order, whether the parameters come from a fit or from a checkpoint
    arrays = dict(sorted(_flat(to_tree(parts))))
    header = {
        "format": _FORMAT,
        "jaxvae_md": version("jaxvae_md"),
        "architecture": as_plain(model.architecture),
        "info": model.info,
    }
    header["sha256"] = _digest(header, arrays)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        contents: dict[str, Any] = {_HEADER: np.array(json.dumps(header)), **arrays}
        np.savez(file, allow_pickle=False, **contents)


def load_model(path: str | Path) -> Model:
    """Reads a model that `save_model` wrote, or the one in the folder of a run.

    **Raises:** `FileError` for what is no model, was altered, or needs a newer jaxvae_md.

    ```python
    model = load_model("jaxvae-md-run")
    energy = model.potential.energy(model.params, structure, neighbors)
    ```
    """
    path = Path(path)
    if path.is_dir():
        path = path / MODEL
        if not path.is_file():
            raise FileError(
                f"the folder holds no {MODEL}",
                file=path.parent,
                remedy="give the folder of a finished run of jaxvae-md learn or fit",
            )
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop(_HEADER)))
        known = header["format"] <= _FORMAT
    except FileNotFoundError:
        raise FileError("no such file", file=path, remedy="give a model.npz or a run") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, *_BROKEN) as error:
        # for any other file numpy speaks of pickles and of allowing them
        archive = zipfile.is_zipfile(path)
        reason = f"{type(error).__name__}: {error}" if archive else "it is no whole npz archive"
        raise FileError(
            f"cannot be read as a model ({reason})",
            file=path,
            remedy="give a model.npz that jaxvae-md learn or fit wrote",
        ) from None
    if not known:
        raise NewerFormatError(
            f"written by jaxvae_md {header['jaxvae_md']} in format {header['format']}; this one "
            f"({version('jaxvae_md')}) reads up to {_FORMAT}",
            file=path,
            remedy="pip install --upgrade jaxvae_md",
        )
    if header.pop("sha256", None) != _digest(header, arrays):
        raise FileError(
            "was altered after it was written", file=path, remedy="take another copy of it"
        )
    tree = _nested(arrays)
    return Model(
        architecture=from_plain(Architecture, header["architecture"]),
        standardizer=from_tree(Standardizer, tree["standardizer"]),
        params=tree["params"],
        coverage=from_tree(CoverageModel, tree["coverage"]),
        vae_params=tree.get("vae_params"),
        info=header["info"],
    )


_BROKEN = (zipfile.BadZipFile, zlib.error, NotImplementedError, SyntaxError, RuntimeError)
"""What zipfile and numpy raise for a damaged file, beside errors of values"""


def _digest(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _flat(tree: dict[str, Any], prefix: str = ""):
    for name, part in tree.items():
        if isinstance(part, dict):
            yield from _flat(part, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", np.asarray(part)


def _nested(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *folders, name = path.split("/")
        branch = tree
        for folder in folders:
            branch = branch.setdefault(folder, {})
        branch[name] = array
    return tree
