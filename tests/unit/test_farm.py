"""Many labels at once: what is kept, what is set apart, and when it stops."""

import multiprocessing
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from jaxvae_md.errors import LabelError, OptionError, WriteError
from jaxvae_md.label import calculator_labeller, farm, label_many, remembered
from jaxvae_md.label.store import stored_labels

# JAX has threads, which a fork does not survive
SPAWN = multiprocessing.get_context("spawn")


def copper(num: int) -> list[Atoms]:
    frames = []
    for seed in range(num):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=seed)
        frames.append(atoms)
    return frames


class Spring:
    """Energy and forces of springs to the origin; counts what it computes."""

    reference = "springs"

    def __init__(self):
        self.asked = []

    def __call__(self, atoms):
        self.asked.append(float(atoms.positions.sum()))
        return 0.5 * np.sum(atoms.positions**2), -atoms.positions, np.eye(3)


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor


def test_labels_are_those_of_the_labeller_in_the_order_of_frames(tmp_path, threads):
    frames = copper(6)
    found, rejected = label_many(frames, Spring(), tmp_path / "labels", threads)
    assert not rejected
    for atoms, labelled in zip(frames, found, strict=True):
        assert np.array_equal(labelled.get_forces(), -atoms.positions)
        assert np.array_equal(labelled.get_stress(voigt=False), np.eye(3))
        assert labelled.info["reference"] == "springs"
        assert "reference" not in atoms.info


def test_a_calculator_labels_through_processes(tmp_path):
    frames = copper(2)
    with ProcessPoolExecutor(1, mp_context=SPAWN) as executor:
        found, _ = label_many(frames, calculator_labeller(EMT), tmp_path / "labels", executor)
    frames[1].calc = EMT()
    assert found[1].get_potential_energy() == pytest.approx(frames[1].get_potential_energy())
    assert found[1].get_stress() == pytest.approx(frames[1].get_stress())


def test_nothing_is_computed_twice(tmp_path, threads):
    frames, spring = copper(3), Spring()
    label_many([*frames[:2], frames[0]], spring, tmp_path / "labels", threads)
    assert len(spring.asked) == 2
    found, _ = label_many(frames, spring, tmp_path / "labels", threads)
    assert len(spring.asked) == 3 and len(found) == 3


def test_labels_of_another_reference_are_not_taken(tmp_path, threads):
    frames, other = copper(2), Spring()
    label_many(frames, Spring(), tmp_path / "labels", threads)
    other.reference = "stiffer springs"
    label_many(frames, other, tmp_path / "labels", threads)
    assert len(other.asked) == 2
    assert len(stored_labels(tmp_path / "labels", "springs")) == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda atoms: (np.nan, -atoms.positions), "not all of them finite"),
        (lambda atoms: (0.0, -1e4 * atoms.positions), "beyond 50"),
        (lambda atoms: (0.0, atoms.positions[:1]), "shape"),
        (lambda atoms: (0.0, -atoms.positions, np.zeros(6)), "stress of shape"),
        (lambda atoms: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_is_no_label_is_set_apart_with_the_reason(tmp_path, threads, answer, reason):
    frames, spring = copper(6), Spring()
    bad = frames[4].positions[0, 0]
    labeller = lambda atoms: answer(atoms) if atoms.positions[0, 0] == bad else spring(atoms)
    found, rejected = label_many(frames, labeller, tmp_path / "labels", threads)
    assert len(found) == 5
    assert [one.frame for one in rejected] == [4] and reason in rejected[0].reason


def test_a_labeller_that_raises_once_is_asked_again(tmp_path, threads):
    frames, spring, first = copper(3), Spring(), []

    def labeller(atoms):
        if not first:
            first.append(atoms)
            raise OSError("the file system is away")
        return spring(atoms)

    found, rejected = label_many(frames, labeller, tmp_path / "labels", threads)
    assert len(found) == 3 and not rejected


def test_it_stops_when_too_many_fail_and_keeps_what_it_has(tmp_path, threads):
    frames, spring = copper(20), Spring()
    bad = {atoms.positions[0, 0] for atoms in frames[1::2]}

    def labeller(atoms):
        if atoms.positions[0, 0] in bad:
            raise ValueError("no")
        return spring(atoms)

    with pytest.raises(LabelError, match="structures have no label; the last, ") as caught:
        label_many(frames, labeller, tmp_path / "labels", threads, num_retries=0)
    assert "ValueError: no" in str(caught.value)
    assert len(stored_labels(tmp_path / "labels")) == len(spring.asked)


def test_a_labeller_that_hangs_is_left_behind(tmp_path, threads):
    frames, spring, end = copper(6), Spring(), threading.Event()
    slow = frames[0].positions[0, 0]

    def labeller(atoms):
        if atoms.positions[0, 0] == slow:
            end.wait(20)
        return spring(atoms)

    found, rejected = label_many(frames, labeller, tmp_path / "labels", threads, time_limit=0.5)
    end.set()
    assert len(found) == 5 and "not ready after 0.5 s" in rejected[0].reason


def test_it_stops_when_all_workers_hang(tmp_path, threads):
    end = threading.Event()
    labeller = lambda atoms: end.wait(20)
    began = time.monotonic()
    with pytest.raises(LabelError, match="all of them hang"):
        label_many(copper(4), labeller, tmp_path / "labels", threads, time_limit=0.4)
    end.set()
    assert time.monotonic() - began < 15


def test_a_labeller_that_no_other_process_can_have_is_told_so(tmp_path):
    with (
        ProcessPoolExecutor(1, mp_context=SPAWN) as executor,
        pytest.raises(LabelError, match="executor failed"),
    ):
        label_many(copper(1), lambda atoms: None, tmp_path / "labels", executor)


def test_labels_that_cannot_be_written_are_a_write_error(tmp_path, threads, monkeypatch):
    def full(*args):
        raise WriteError("cannot be written (no space)")

    monkeypatch.setattr(farm, "store_label", full)
    with pytest.raises(WriteError, match="no space"):
        label_many(copper(1), Spring(), tmp_path / "labels", threads)


def test_what_was_set_apart_does_not_stop_the_same_call(tmp_path, threads):
    frames, spring = copper(6), Spring()
    bad = frames[4].positions[0, 0]
    labeller = lambda atoms: (np.nan, 0) if atoms.positions[0, 0] == bad else spring(atoms)
    for _ in range(2):
        found, rejected = label_many(frames, labeller, tmp_path / "labels", threads)
        assert len(found) == 5 and [one.frame for one in rejected] == [4]
    assert len(spring.asked) == 5


def test_a_large_force_is_a_matter_of_the_call(tmp_path, threads):
    frames, spring = copper(2), Spring()
    options = {"path": tmp_path / "new folder" / "labels", "executor": threads}
    assert not label_many(frames, spring, largest_force=0.1, **options).frames
    assert len(label_many(frames, spring, **options).frames) == 2
    assert len(label_many(frames, spring, largest_force=0.1, **options).rejected) == 2
    assert len(spring.asked) == 2


def test_constraints_are_not_part_of_a_label(tmp_path, threads):
    (atoms,) = copper(1)
    atoms.set_constraint(FixAtoms([0, 1]))
    found, _ = label_many([atoms], calculator_labeller(EMT), tmp_path / "labels", threads)
    assert np.abs(found[0].get_forces(apply_constraint=False)[:2]).min() > 1e-3


@pytest.mark.parametrize(
    "option",
    [
        {"time_limit": 0},
        {"num_retries": -1},
        {"failure_rate": 2},
        {"largest_force": -1},
        {"num_workers": 0},
    ],
)
def test_bad_options_are_refused(tmp_path, threads, option):
    with pytest.raises(OptionError, match=next(iter(option))):
        label_many(copper(1), Spring(), tmp_path / "labels", threads, **option)


def test_a_labeller_that_remembers_needs_no_file(tmp_path, threads):
    spring = Spring()
    labeller = remembered(spring, tmp_path / "labels")
    for _ in range(2):
        found, _ = label_many(copper(4), labeller, None, threads)
        assert [atoms.info["reference"] for atoms in found] == ["springs"] * 4
    assert len(spring.asked) == 4
    assert len(stored_labels(tmp_path / "labels", "springs")) == 4
