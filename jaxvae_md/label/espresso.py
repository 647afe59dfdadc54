"""Quantum ESPRESSO's pw.x as the reference."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxvae_md.errors import LabelError, LabellerError, OptionError, SpeciesError

if TYPE_CHECKING:
    from ase import Atoms

PSEUDO_DIR = "/usr/share/espresso/pseudo"
"""where Debian's quantum-espresso-data puts pseudopotentials"""
PSEUDOPOTENTIALS = {"Si": "Si.pbe-rrkj.UPF"}


class Espresso:
    """Energy, forces and stress of a structure by density functional theory; a labeller.

    Monkhorst-Pack grids that are always shifted: along each reciprocal vector b (with
    2 pi) there are 2 ceil(|b| / 2 spacing) points, one where |b| is below the spacing. So a
    primitive cell of silicon has 4x4x4 points, a cubic one too, and one of 16 atoms 2x2x2: grids
    of one density, whose errors cancel between cells.

    Every structure is computed in a folder of its own by one process, which may run in threads
    side by side. `reference` tells what decides the labels.

    **Arguments:** `cutoff` of the plane waves and `smearing` (Gaussian) in Ry; `spacing` of
    k-points in 1 / angstrom; `time_limit` in seconds; `pseudopotentials` by symbol, files of
    `pseudo_dir`; `num_workers` that the closed loop runs side by side, by default as many as there
    are CPUs. **Raises:** `OptionError` where pw.x or a pseudopotential is missing; when called
    `LabelError` for what is not periodic, did not converge or ran out of time, `LabellerError`
    where pw.x fails, `SpeciesError`. **Source:** Giannozzi et al., J. Phys. Condens. Matter 29,
    465901 (2017).

    ```python
    labeller = Espresso()
    energy, forces, stress = labeller(ase.build.bulk("Si"))
    ```
    """

    def __init__(
        self,
        pseudopotentials: Mapping[str, str] = PSEUDOPOTENTIALS,
        *,
        cutoff: float = 24.0,
        spacing: float = 0.53,
        smearing: float = 0.005,
        convergence: float = 1e-7,
        time_limit: float = 1800.0,
        num_workers: int | None = None,
        command: str = "pw.x",
        pseudo_dir: str | Path = PSEUDO_DIR,
    ) -> None:
        found = shutil.which(command)
        if found is None:
            raise OptionError(
                f"{command} is not there, or cannot be executed",
                remedy="install Quantum ESPRESSO (on Debian: apt-get install quantum-espresso "
                "quantum-espresso-data libopenblas0-pthread)",
            )
        # it runs in folders of its own
        found, pseudo_dir = os.path.abspath(found), os.path.abspath(pseudo_dir)
        digests = {}
        for symbol, name in pseudopotentials.items():
            path = Path(pseudo_dir, name)
            if not path.is_file():
                raise OptionError(
                    f"the pseudopotential of {symbol} is missing: {path}",
                    remedy="give the folder of the file as pseudo_dir",
                )
            digests[symbol] = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        self._command, self._pseudo_dir, self._time_limit = found, str(pseudo_dir), time_limit
        if num_workers is not None and num_workers < 1:
            raise OptionError(f"num_workers is {num_workers}", remedy="give 1 or more")
        self.num_workers = num_workers or os.cpu_count() or 1
        self._pseudopotentials, self._spacing = dict(pseudopotentials), spacing
        self._input = {
            "control": {"calculation": "scf", "tprnfor": True, "tstress": True, "disk_io": "none"},
            "system": {
                "ecutwfc": cutoff,
                "occupations": "smearing",
                "smearing": "gaussian",
                "degauss": smearing,
            },
            "electrons": {"conv_thr": convergence, "electron_maxstep": 200},
        }
        of_species = ", ".join(
            f"{symbol}: {name} {digests[symbol]}" for symbol, name in pseudopotentials.items()
        )
        self.reference = (
            f"Quantum ESPRESSO {_version(found)}; {of_species}; {cutoff:g} Ry; gaussian "
            f"{smearing:g} Ry; to {convergence:g} Ry; k {spacing:g} / angstrom, shifted"
        )

    def __call__(self, atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray]:
        """Energy (eV), forces (eV / angstrom) and stress `[3, 3]` (eV / angstrom^3)."""
        from ase.io import read, write

        missing = sorted(set(atoms.get_chemical_symbols()) - set(self._pseudopotentials))
        if missing:
            raise SpeciesError(
                f"no pseudopotential for {missing[0]}",
                remedy=f"name one; there are some for {', '.join(self._pseudopotentials)}",
            )
        if not atoms.pbc.all():
            raise LabelError(
                f"pw.x knows periodic cells alone, and pbc is {atoms.pbc.tolist()}",
                remedy="add vacuum, and set pbc",
            )
        grid, shift = k_grid(atoms, self._spacing)
        with tempfile.TemporaryDirectory(prefix="jaxvae_md_pw_") as folder:
            control: dict[str, Any] = self._input["control"]
            control = control | {"pseudo_dir": self._pseudo_dir, "outdir": folder}
            write(
                f"{folder}/pw.in",
                atoms,
                format="espresso-in",
                input_data=self._input | {"control": control},
                pseudopotentials=self._pseudopotentials,
                kpts=grid,
                koffset=shift,
            )
            output = Path(folder, "pw.out")
            self._run(folder, output)
            text = output.read_text(errors="replace")
            if "convergence NOT achieved" in text:
                raise LabelError("pw.x did not converge", remedy="leave this structure out")
            if "JOB DONE" not in text:
                raise LabellerError(
                    f"pw.x failed: {_complaint(text)}", remedy="look at this structure"
                )
            result = read(output, format="espresso-out")
        assert not isinstance(result, list)
        stress = result.get_stress(voigt=False)
        return float(result.get_potential_energy()), result.get_forces(), stress

    def _run(self, folder: str, output: Path) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        try:
            # a group of its own: an interrupt at the terminal lets it finish, an end takes all
            with (
                open(output, "wb") as out,
                subprocess.Popen(
                    [self._command, "-in", "pw.in"],
                    cwd=folder,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                ) as process,
            ):
                try:
                    process.wait(self._time_limit)
                except BaseException:
                    os.killpg(process.pid, signal.SIGKILL)
                    raise
        except subprocess.TimeoutExpired:
            raise LabelError(
                f"pw.x was not ready after {self._time_limit:g} s",
                remedy="allow it more time, or leave the structure out",
            ) from None
        except OSError as error:
            raise LabellerError(
                f"pw.x cannot be started ({error.strerror})", remedy="look at the installation"
            ) from None


def k_grid(atoms: Atoms, spacing: float = 0.53):
    """Points along each reciprocal vector, and their shifts.

    ```python
    k_grid(ase.build.bulk("Si"))  # (4, 4, 4), (1, 1, 1)
    ```
    """
    lengths = 2 * np.pi * np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    points = tuple(
        1 if length < spacing else 2 * int(np.ceil(length / (2 * spacing))) for length in lengths
    )
    return points, tuple(int(num > 1) for num in points)


def _version(command: str) -> str:
    """What pw.x calls itself, by a run without input."""
    with tempfile.TemporaryDirectory(prefix="jaxvae_md_pw_") as folder:
        # it leaves files where it runs
        options = {"cwd": folder, "input": b"", "capture_output": True, "timeout": 60}
        try:
            said = subprocess.run([command], check=False, **options)
        except (OSError, subprocess.TimeoutExpired):
            return "(unknown version)"
    found = re.search(rb"PWSCF v\.(\S+)", said.stdout)
    return found[1].decode() if found else "(unknown version)"


def _complaint(text: str) -> str:
    """What pw.x says is wrong."""
    found = re.search(r"%{10,}\s*\n\s*(Error.*?)\n\s*(.*?)\n", text)
    return " ".join(part.strip() for part in found.groups()) if found else "it ended early"
