"""What the closed loop knows: a pytree of arrays, filled in stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvae_md._typing import Params
from jaxvae_md.batching import Batch, batches
from jaxvae_md.checkpoint import from_tree
from jaxvae_md.coverage import CoverageModel
from jaxvae_md.descriptors.standardize import Standardizer
from jaxvae_md.label.answer import Label, attached
from jaxvae_md.learn.config import Config, label_of, resolve, split
from jaxvae_md.simulate.engine import Trajectory
from jaxvae_md.structure import Structure, append_zeros, from_atoms, stack, to_atoms

if TYPE_CHECKING:
    from ase import Atoms


class Dataset(NamedTuple):
    """Labelled frames, padded to the largest."""

    structure: Structure
    energy: Float[np.ndarray, " frames"]
    """eV, whole cell"""
    forces: Float[np.ndarray, "frames n 3"]
    """eV / angstrom"""
    stress: Float[np.ndarray, "frames 3 3"]
    """eV / angstrom^3, tension positive; not a number where it is not known"""
    kind: Int[np.ndarray, " frames"]
    """index into the labels"""


class Generated(NamedTuple):
    """Structures made for what the data lack; those that were rejected are kept with the reason."""

    structure: Structure
    """leading axis g"""
    center: Int[np.ndarray, " g"]
    """the atom whose surroundings are new"""
    start: Int[np.ndarray, " g"]
    """the data frame it was made from"""
    origin: Int[np.ndarray, " g"]
    """the route and what was done, an index into `gaps.ORIGINS`"""
    request: Float[np.ndarray, "g latent"]
    """the latent point that was requested; not a number where none was"""
    latent: Float[np.ndarray, "g latent"]
    """the latent code of the center"""
    residual: Float[np.ndarray, " g"]
    """rms difference of the latent code from the requested one"""
    novelty: Float[np.ndarray, " g"]
    """of the center's environment, in units of d95"""
    closest: Float[np.ndarray, " g"]
    """shortest pair distance over its lower limit"""
    energy: Float[np.ndarray, " g"]
    """eV per atom, by the current potential"""
    error: Int[np.ndarray, " g"]
    """error bits of the candidate"""
    accepted: Bool[np.ndarray, " g"]


class Trial(NamedTuple):
    """The same short simulation with several parameter sets, and what is compared."""

    temperature: Float[np.ndarray, ""]
    """K"""
    unlearned: Trajectory
    learned: Trajectory
    reference: Trajectory | None
    """the reference's own simulation; None when only data frames are there to compare with"""
    r: Float[np.ndarray, " bins"]
    """angstrom"""
    rdf_unlearned: Float[np.ndarray, " bins"]
    rdf_learned: Float[np.ndarray, " bins"]
    rdf_reference: Float[np.ndarray, " bins"]
    energy_reference: Float[np.ndarray, ""]
    """mean potential energy, eV per atom"""
    outside: Float[np.ndarray, ""]
    """share of the environments of the learned simulation outside the data"""
    refined: Trajectory | None = None
    """the simulation with the parameters that its gradient refined"""
    rdf_refined: Float[np.ndarray, " bins"] | None = None


class State(NamedTuple):
    """State of the loop; what a later stage makes is None until then."""

    round: Int[np.ndarray, ""]
    data: Dataset
    train: Int[np.ndarray, " t"]
    test: Int[np.ndarray, " h"]
    x: Float[np.ndarray, "atoms f"] | None = None
    """descriptors of all atoms of all frames, frame after frame"""
    standardizer: Standardizer | None = None
    vae_params: Params = None
    unlearned: Params = None
    """the full model's parameters before any fit"""
    core: Params = None
    """atomic energies and Lennard-Jones, fitted alone"""
    fitted: Params = None
    """the full model, fitted to the given data"""
    coverage: CoverageModel | None = None
    generated: Generated | None = None
    labels: Dataset | None = None
    """the accepted structures with the reference's labels"""
    learned: Params = None
    """the full model, fitted again with the new labels"""
    trial: Trial | None = None
    refined: Params = None
    """the full model after the gradient through the simulation"""
    properties: dict[str, np.ndarray] = {}
    """of the crystal, by column: the fields of `properties.Properties`"""
    history: dict[str, np.ndarray] = {}
    """losses on the way, by name"""

    @property
    def params(self) -> Params:
        """The newest parameters of the full model."""
        known = (self.refined, self.learned, self.fitted, self.unlearned)
        return next((p for p in known if p is not None), None)


def start(frames: Sequence[Atoms], config: Config) -> tuple[State, Config]:
    """The state before the first stage, and the config with all that follows from the data.

    ```python
    state, config = start(datasets.silicon(), Config(labeller="sw"))
    ```
    """
    train, test = split(frames, config.held_out, config.seed)
    config = resolve(config, frames, train)
    return State(np.zeros((), int), to_dataset(frames, config), train, test), config


def restored(tree: dict[str, Any]) -> State:
    """A state from its checkpoint, also of a version that did not keep stress."""
    state: State = from_tree(State, tree)

    def whole(dataset: Dataset | None) -> Dataset | None:
        if dataset is None or dataset.stress is not None:
            return dataset
        return dataset._replace(stress=np.full((len(dataset.energy), 3, 3), np.nan))

    return state._replace(data=whole(state.data), labels=whole(state.labels))


def to_dataset(frames: Sequence[Atoms], config: Config) -> Dataset:
    """Labelled ASE frames as arrays."""
    structure = stack([from_atoms(atoms, config.species) for atoms in frames])
    forces = np.zeros(structure.position.shape)
    for row, atoms in zip(forces, frames, strict=True):
        row[: len(atoms)] = atoms.get_forces()
    known = {name: i for i, name in enumerate(config.labels)}
    return Dataset(
        structure,
        np.array([atoms.get_potential_energy() for atoms in frames]),
        forces,
        np.array([_stress(atoms) for atoms in frames]),
        np.array([known.get(label_of(atoms), -1) for atoms in frames]),
    )


def _stress(atoms: Atoms) -> np.ndarray:
    """`[3, 3]`; not a number where the label has none."""
    assert atoms.calc is not None
    if "stress" not in atoms.calc.results or not atoms.pbc.all():
        return np.full((3, 3), np.nan)
    return atoms.get_stress(voigt=False)


def resized(dataset: Dataset, size: int) -> Dataset:
    """The same frames padded to `size` atoms."""
    extra = size - dataset.forces.shape[1]
    add = lambda array: append_zeros(array, extra, axis=1)
    structure = dataset.structure
    return dataset._replace(
        structure=structure._replace(
            position=add(structure.position),
            species=add(structure.species),
            mask=add(structure.mask),
        ),
        forces=add(dataset.forces),
    )


def frame(structure: Structure, number: int) -> Structure:
    """One structure of a stack, without its padding."""
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[number], structure)
    size = int(one.mask.sum())
    return one._replace(
        position=one.position[:size], species=one.species[:size], mask=one.mask[:size]
    )


def frames_of(structure: Structure, species: tuple[str, ...]) -> list[Atoms]:
    """All structures of a stack as ASE Atoms."""
    return [to_atoms(frame(structure, i), species) for i in range(len(structure.mask))]


def validation_split(
    state: State, share: float, seed: int
) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " v"]]:
    """Training frames for a fit's updates, and a share of each label that decides when it stops."""
    rng = np.random.default_rng([seed, 1])
    kinds = np.asarray(state.data.kind)
    validation: list[int] = []
    for kind in np.unique(kinds[state.train]):
        members = rng.permutation(state.train[kinds[state.train] == kind])
        if len(members) > 2:
            validation += members[: max(1, int(len(members) * share))].tolist()
    chosen = np.array(validation or [state.train[0]])
    return np.setdiff1d(state.train, chosen), np.sort(chosen)


def counts(state: State) -> Int[np.ndarray, " frames"]:
    """Number of atoms of each data frame."""
    return np.asarray(state.data.structure.mask).sum(axis=1)


def composition(dataset: Dataset, num_species: int) -> Int[np.ndarray, "frames s"]:
    """Number of atoms of each species in each frame."""
    structure = dataset.structure
    species = np.where(structure.mask, structure.species, -1)
    return np.stack([(species == s).sum(axis=1) for s in range(num_species)], axis=1)


def by_frame(state: State, values: np.ndarray) -> list[np.ndarray]:
    """Cuts an array over all atoms into one per data frame."""
    return np.split(values, np.cumsum(counts(state))[:-1])


def atoms_of(state: State, frames: np.ndarray) -> np.ndarray:
    """Mask over all atoms: those of the given data frames."""
    return np.repeat(np.isin(np.arange(len(counts(state))), frames), counts(state))


def batched(dataset: Dataset, cutoff: float, rows: np.ndarray) -> list[Batch]:
    """Padded batches with neighbor lists of some frames of a data set."""
    return batches([frame(dataset.structure, i) for i in rows], cutoff)


def labels_of(
    dataset: Dataset, rows: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Energies of some frames, their forces without padding, and their stresses."""
    mask = np.asarray(dataset.structure.mask)
    forces = [np.asarray(dataset.forces)[i][mask[i]] for i in rows]
    return np.asarray(dataset.energy)[rows], forces, np.asarray(dataset.stress)[rows]


def labelled_frames(labels: Dataset, frames: Sequence[Atoms]) -> list[Atoms]:
    """The frames with the labels of a data set attached."""
    rows = labels_of(labels, np.arange(len(frames)))
    return [
        attached(atoms, Label(float(energy), forces, stress if np.isfinite(stress).all() else None))
        for atoms, energy, forces, stress in zip(frames, *rows, strict=True)
    ]
