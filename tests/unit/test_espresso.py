"""Quantum ESPRESSO as the reference; what needs pw.x is skipped where it is not there."""

import shutil

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, diamond100

from jaxvae_md.errors import LabelError, OptionError, SpeciesError
from jaxvae_md.label import Espresso, get_labeller
from jaxvae_md.label.espresso import PSEUDO_DIR, PSEUDOPOTENTIALS, k_grid

needs_pw = pytest.mark.skipif(
    shutil.which("pw.x") is None, reason="Quantum ESPRESSO (pw.x) is not installed"
)


def slab() -> Atoms:
    atoms = diamond100("Si", size=(1, 1, 8), a=5.47, vacuum=6.0)
    atoms.pbc = True
    return atoms


@pytest.mark.parametrize(
    ("atoms", "points"),
    [
        (bulk("Si"), (4, 4, 4)),
        (bulk("Si", cubic=True), (4, 4, 4)),
        (bulk("Si") * (2, 2, 2), (2, 2, 2)),
        (slab(), (4, 4, 1)),
    ],
)
def test_grids_are_of_one_density(atoms, points):
    found, shift = k_grid(atoms)
    assert found == points
    assert shift == tuple(int(num > 1) for num in points)


def test_what_is_not_periodic_is_refused(tmp_path):
    atoms = bulk("Si", cubic=True)
    atoms.pbc = (True, True, False)
    with pytest.raises(LabelError, match="periodic cells alone"):
        Espresso({"Si": "Si.UPF"}, **program(tmp_path, ""))(atoms)


def test_a_missing_program_is_an_option_error_that_says_how_to_install_it():
    with pytest.raises(OptionError, match="apt-get install quantum-espresso"):
        Espresso(command="no-such-pw.x")


def test_a_missing_pseudopotential_is_an_option_error(tmp_path):
    with pytest.raises(OptionError, match=r"pseudopotential of Si is missing: .*Si\.pbe"):
        Espresso(command="true", pseudo_dir=tmp_path)


def program(tmp_path, text: str, code: int = 0) -> dict:
    """What stands in for pw.x and says this."""
    path = tmp_path / "pw.x"
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
    path.chmod(0o755)
    (tmp_path / "Si.UPF").write_text("none")
    return {"command": str(path), "pseudo_dir": tmp_path}


def test_a_folder_may_be_relative(tmp_path, monkeypatch):
    program(tmp_path, "no input file: no-such")
    (tmp_path / "pw.x").write_text("#!/bin/sh\ngrep pseudo_dir pw.in\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabelError, match="ended early"):
        Espresso({"Si": "Si.UPF"}, command="./pw.x", pseudo_dir=".")(bulk("Si"))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("convergence NOT achieved after 200 iterations\nJOB DONE.", "did not converge"),
        (f"{'%' * 60}\n Error in routine setup (1):\n too few bands\n{'%' * 60}", "too few bands"),
        ("", "ended early"),
    ],
)
def test_what_pw_says_is_the_reason(tmp_path, said, words):
    labeller = Espresso({"Si": "Si.UPF"}, **program(tmp_path, said))
    with pytest.raises(LabelError, match=words):
        labeller(bulk("Si"))


def test_a_program_that_hangs_is_ended(tmp_path):
    options = program(tmp_path, "")
    (tmp_path / "pw.x").write_text("#!/bin/sh\n[ $# -eq 0 ] || sleep 60\n")
    with pytest.raises(LabelError, match="not ready after 1 s"):
        Espresso({"Si": "Si.UPF"}, **options, time_limit=1.0)(bulk("Si"))


def test_a_species_without_pseudopotential_is_refused(tmp_path):
    labeller = Espresso({"Si": "Si.UPF"}, **program(tmp_path, ""))
    with pytest.raises(SpeciesError, match="no pseudopotential for C"):
        labeller(bulk("C"))


@needs_pw
def test_pw_labels_a_primitive_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labeller = get_labeller("qe")
    atoms = bulk("Si", a=5.47)
    atoms.positions[1] += 0.05
    energy, forces, stress = labeller(atoms)
    assert energy == pytest.approx(-214.13, abs=0.02)
    assert np.abs(forces.sum(axis=0)).max() < 1e-3
    assert np.allclose(stress, stress.T, atol=1e-6)
    for name in (PSEUDOPOTENTIALS["Si"], "24 Ry", "k 0.53"):
        assert name in labeller.reference
    assert "unknown" not in labeller.reference
    assert not list(tmp_path.iterdir())


@needs_pw
@pytest.mark.slow
def test_forces_of_pw_are_the_slope_of_its_energy():
    labeller = Espresso(convergence=1e-10, pseudo_dir=PSEUDO_DIR)
    atoms = bulk("Si", a=5.47)
    atoms.rattle(0.1, seed=0)
    _, forces, _ = labeller(atoms)
    energies = []
    for step in (0.01, -0.01):
        moved = atoms.copy()
        moved.positions[1, 0] += step
        energies.append(labeller(moved)[0])
    assert forces[1, 0] == pytest.approx((energies[1] - energies[0]) / 0.02, abs=5e-3)
