"""A run of the loop that is as small as it can be, and readers of what it leaves."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from ase import Atoms
from ase.build import bulk

from jaxvae_md.label import get_labeller, label
from jaxvae_md.learn import Config
from jaxvae_md.options import from_plain

TINY = Config(
    labeller="sw",
    num_generated=2,
    latent_dim=3,
    radial_order=4,
    angular_order=4,
    hidden=(8,),
    vae_steps=300,
    vae_copies=0,
    coverage_steps=0,
    lj_steps=40,
    fit_steps=400,
    novelty_band=(1.5, 30.0),
    refit_steps=40,
    md_steps=60,
    refine_updates=1,
    refine_window=10,
    refine_replicas=1,
    physics=False,
)


class Runs(NamedTuple):
    """Folders that tests read, or copy before they change them."""

    path: Path
    """holds si.extxyz and options.yaml (the options of TINY), and the folders run, fitted and md"""
    said: dict[str, str]
    """what each command printed with --json, by folder"""
    seconds: dict[str, float]
    """how long each took"""


def small_silicon() -> list[Atoms]:
    """Sixteen cells of eight atoms, of two labels, labelled by Stillinger-Weber."""
    rng = np.random.default_rng(0)
    frames = []
    for number in range(16):
        atoms = bulk("Si", cubic=True)
        strain = rng.uniform(-0.04, 0.04, (3, 3)) if number % 2 else np.zeros((3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain + strain.T), scale_atoms=True)
        atoms.rattle(0.1, seed=number)
        atoms.info["label"] = "strained" if number % 2 else "crystal"
        frames.append(atoms)
    out = label(frames, get_labeller("sw"))
    for labelled, atoms in zip(out, frames, strict=True):
        labelled.info.update(atoms.info)
    return out


def metrics(folder) -> list[dict]:
    """The lines, which must be JSON to every program: it has no NaN."""

    def refuse(name):
        raise ValueError(f"{name} is no JSON")

    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def without_time(record: dict) -> dict:
    return {name: value for name, value in record.items() if name != "seconds"}


def config_of_run(folder) -> Config:
    options = yaml.safe_load((folder / "config.yaml").read_text())
    del options["data"]
    return from_plain(Config, options)


def listing(path: Path) -> dict[str, bytes]:
    """Every file below a folder; the lock names whoever was last here."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.name != ".lock"
    }
