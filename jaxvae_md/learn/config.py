"""Options of the closed loop, and what follows from the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from jaxvae_md.architecture import TERMS, Architecture, Terms
from jaxvae_md.errors import OptionError
from jaxvae_md.generate.candidate import BAND
from jaxvae_md.label import reference_of
from jaxvae_md.neighbors import host_pairs
from jaxvae_md.structure import from_atoms, species_table

if TYPE_CHECKING:
    from ase import Atoms


Acquisition = Literal["coverage", "novelty"]


@dataclass(frozen=True)
class Config:
    """Everything that decides a run, beside the data. `resolve` fills in what the data decide.

    Everyday options come first. **Raises:** `OptionError` for a value that cannot work.
    """

    seed: int = 0
    labeller: str = "none"
    num_rounds: int = 1
    """how often the loop is closed; more than one needs a labeller"""
    num_generated: int = 12
    acquisition: Acquisition = "coverage"
    """which structures are labelled: made and simulated ones that cover most of what the data lack
    (`generate.acquire`), or made ones that are farthest from the data (`generate.generate`)"""
    potential: Terms = "lj+nn"
    temperature: float | None = None
    """K, of the trial simulation; by default the start frame's, or what equipartition gives"""

    latent_dim: int = 8
    radial_order: int = 12
    angular_order: int = 12
    cutoff: float | None = None
    """angstrom; by default 2.55 nearest-neighbor distances"""
    hidden: tuple[int, ...] = (64, 64)
    num_members: int = 1
    """networks of the potential, which is their mean; two or more know how much they differ"""
    held_out: float = 0.1
    """share of the frames of each label that no fit sees"""

    vae_steps: int = 6000
    vae_copies: int = 5
    """strained and rattled copies of every training frame for the VAE"""
    coverage_steps: int = 1000
    """of the VAE in which coverage is judged; 0 judges the pooled descriptors as they are"""
    lj_steps: int = 600
    fit_steps: int = 10000
    validation: float = 0.0
    """share of the training frames of each label that decides when the network's fit stops; with
    0 it takes all its steps"""
    energy_weight: float = 3.0
    """of the network's fit; that of the forces is 1"""
    stress_weight: float = 0.1
    refit_steps: int = 5000
    novelty_band: tuple[float, float] = BAND
    """of what is made by novelty"""
    false_alarm: float = 0.05
    time_step: float = 1.0
    """fs"""
    md_steps: int = 2000
    refine_updates: int = 8
    refine_window: int = 50
    """steps of the simulation that the gradient goes through"""
    refine_replicas: int = 4

    reference: str = ""
    """which made the labels, as far as the frames tell"""
    physics: bool = True
    """whether a run ends with a table of the crystal's properties"""
    stability_steps: int = 50000
    """of 2 fs at 2000 K with 16 atoms, in which none may collapse; 0 leaves it out"""
    species: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    nearest_distance: float | None = None
    """angstrom, in the frame of lowest energy per atom"""
    trial_start: int | None = None
    """number of the frame from which the trial simulation starts"""
    trial_reference: tuple[int, ...] = ()
    """training frames of the same label and density, with which it is compared"""

    def __post_init__(self):
        for field in fields(self):
            value, words = getattr(self, field.name), _RULE_OF[field.name]
            left_open = value is None and field.default is None
            if not left_open and not _RULES[words][0](value):
                raise OptionError(f"{field.name} is {value!r}", remedy=f"give {words}")

    @property
    def architecture(self) -> Architecture:
        """The models that a resolved config describes."""
        assert self.cutoff is not None and self.nearest_distance is not None
        return Architecture(
            species=self.species,
            cutoff=self.cutoff,
            nearest_distance=self.nearest_distance,
            radial_order=self.radial_order,
            angular_order=self.angular_order,
            latent_dim=self.latent_dim,
            hidden=self.hidden,
            num_members=self.num_members,
            potential=self.potential,
        )


FINE: dict[str, Any] = {
    "radial_order": 24,
    "angular_order": 14,
    "num_members": 4,
    "fit_steps": 12000,
}
"""options of `jaxvae-md fit`: a potential alone may have finer descriptors than a VAE wants, and
the time for a committee"""


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return _whole(value) or (isinstance(value, float) and np.isfinite(value))


def _all(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple) and all(map(test, value))


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "a whole number, 0 or more": (
        lambda v: _whole(v) and v >= 0,
        "seed num_generated vae_copies coverage_steps radial_order angular_order refine_updates "
        "trial_start stability_steps",
    ),
    "a whole number, 1 or more": (
        lambda v: _whole(v) and v >= 1,
        "num_rounds latent_dim vae_steps lj_steps fit_steps refit_steps md_steps refine_window "
        "refine_replicas num_members",
    ),
    "a positive number": (
        lambda v: _number(v) and v > 0,
        "temperature cutoff time_step nearest_distance",
    ),
    "0 or a positive number": (
        lambda v: _number(v) and v >= 0,
        "energy_weight stress_weight",
    ),
    "a number between 0 and 1": (lambda v: _number(v) and 0 < v < 1, "held_out false_alarm"),
    "0, or a share below 1": (lambda v: _number(v) and 0 <= v < 1, "validation"),
    "two numbers, the smaller first": (
        lambda v: _all(_number)(v) and len(v) == 2 and v[0] < v[1],
        "novelty_band",
    ),
    "a list of whole numbers, 0 or more": (
        _all(lambda v: _whole(v) and v >= 0),
        "trial_reference",
    ),
    "a list of whole numbers, 1 or more": (_all(lambda v: _whole(v) and v >= 1), "hidden"),
    "true or false": (lambda v: isinstance(v, bool), "physics"),
    "a list of texts": (_all(lambda v: isinstance(v, str)), "species labels"),
    "a text": (lambda v: isinstance(v, str), "labeller reference"),
    f"one of {', '.join(TERMS)}": (lambda v: v in TERMS, "potential"),
    "coverage or novelty": (lambda v: v in get_args(Acquisition), "acquisition"),
}
"""What a value must be: the test, and the options it holds for."""
_RULE_OF = {name: words for words, (_, names) in _RULES.items() for name in names.split()}


def label_of(atoms: Atoms) -> str:
    """The label of a frame: `info["label"]`, else `info["config_type"]`, else "all"."""
    return str(atoms.info.get("label", atoms.info.get("config_type", "all")))


def resolve(config: Config, frames: Sequence[Atoms], train: Sequence[int] | np.ndarray) -> Config:
    """Fills in what the data decide: species, labels, cutoff, and the trial simulation.

    ```python
    config = resolve(Config(seed=1), frames, train=range(len(frames)))
    ```
    """
    _check_fits(config, frames, train)
    labels = tuple(sorted({label_of(atoms) for atoms in frames}))
    made_by = reference_of(frames)
    if config.reference and made_by and config.reference != made_by:
        raise OptionError(
            f"reference is {config.reference!r}, and the frames are of {made_by!r}",
            remedy="leave the option out",
        )
    nearest = config.nearest_distance or nearest_distance([frames[i] for i in train])
    start, reference, kelvin = _trial(frames, train)
    return replace(
        config,
        reference=made_by or config.reference,
        species=species_table(frames),
        labels=labels,
        nearest_distance=nearest,
        cutoff=config.cutoff or round(2.55 * nearest, 1),
        trial_start=start if config.trial_start is None else config.trial_start,
        trial_reference=config.trial_reference or reference,
        temperature=kelvin if config.temperature is None else config.temperature,
    )


def _check_fits(config: Config, frames: Sequence[Atoms], train: Sequence[int] | np.ndarray) -> None:
    """Options that name other elements, or held-out frames for the trial, are refused."""
    numbers = {i for i in (config.trial_start, *config.trial_reference) if i is not None}
    if config.species not in ((), species_table(frames)) or not numbers <= {int(i) for i in train}:
        raise OptionError(
            f"the options were resolved with other data (of {', '.join(config.species)}) or "
            "another seed",
            remedy="remove species, labels, cutoff, nearest_distance, trial_start and "
            "trial_reference from the options, or give the data and seed they were made with",
        )


def split(frames: Sequence[Atoms], held_out: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out frame numbers: whole frames, the same share of every label.

    A label with a single frame stays in training. **Raises:** `OptionError` when fewer than two
    frames would be left for training.

    ```python
    train, test = split(frames, held_out=0.1, seed=0)
    ```
    """
    rng = np.random.default_rng([seed, 0])
    labels = np.array([label_of(atoms) for atoms in frames])
    test: list[int] = []
    for name in np.unique(labels):
        members = rng.permutation(np.nonzero(labels == name)[0])
        if len(members) > 1:
            test += members[: max(1, round(held_out * len(members)))].tolist()
    train = np.setdiff1d(np.arange(len(frames)), test)
    if len(train) < 2 or not test:
        raise OptionError(
            f"{len(frames)} frames are too few to hold some out and train on the rest",
            remedy="give at least three labelled frames of one label",
        )
    return train, np.sort(test)


def nearest_distance(frames: Sequence[Atoms]) -> float:
    """Median nearest-neighbor distance (angstrom): the length scale of a material.

    In the frame of lowest energy per atom; without energies, the median over all frames.

    ```python
    nearest_distance(datasets.silicon())  # about 2.3
    ```
    """
    if all(atoms.calc is not None and "energy" in atoms.calc.results for atoms in frames):
        per_atom = [atoms.get_potential_energy() / len(atoms) for atoms in frames]
        frames = [frames[int(np.argmin(per_atom))]]
    medians = [distance for atoms in frames if (distance := _median_nearest(atoms)) is not None]
    if not medians:
        raise OptionError(
            "no frame has atoms with neighbors within 50 angstrom",
            remedy="give frames of a condensed phase, or set nearest_distance and cutoff",
        )
    return float(np.median(medians))


def _median_nearest(atoms: Atoms) -> float | None:
    """Median over the atoms of the distance to the nearest neighbor; None when there is none."""
    structure = from_atoms(atoms, species_table([atoms]))
    for radius in (3.0, 5.0, 10.0, 50.0):
        i, j, shift = host_pairs(structure, radius)
        if len(np.unique(i)) == len(atoms):
            vector = structure.position[j] + shift @ structure.cell - structure.position[i]
            nearest = np.full(len(atoms), np.inf)
            np.minimum.at(nearest, i, np.linalg.norm(vector, axis=1))
            return float(np.median(nearest))
    return None


def _trial(
    frames: Sequence[Atoms], train: Sequence[int] | np.ndarray
) -> tuple[int, tuple[int, ...], float | None]:
    """Start frame, reference frames and, where the file says it, temperature of the simulation.

    The largest group of periodic training frames of one label and one density; of these the
    frames of the start frame's temperature, or within 25 meV per atom of its energy.
    """

    def group(i: int) -> tuple[bool, str, int]:
        density = len(frames[i]) / abs(frames[i].cell.complete().volume)
        return not frames[i].pbc.all(), label_of(frames[i]), round(np.log(density) / 0.01)

    sizes = Counter(group(i) for i in train)
    best = min(sizes, key=lambda kind: (kind[0], -sizes[kind], kind[1:]))
    energy = {i: frames[i].get_potential_energy() / len(frames[i]) for i in train}
    members = sorted((i for i in train if group(i) == best), key=lambda i: energy[i])
    start = members[len(members) // 2]
    kelvin = frames[start].info.get("temperature")
    if kelvin is None:
        alike = [i for i in members if abs(energy[i] - energy[start]) < 0.025]
    else:
        alike = [i for i in members if frames[i].info.get("temperature") == kelvin]
        kelvin = float(kelvin)
    return int(start), tuple(map(int, alike)), kelvin
