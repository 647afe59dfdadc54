"""A run on disk, without any run: steps, locks, damage and moves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvae_md import errors, run_folder
from tests.disk import file_size_limit

CONFIG = {"seed": 0, "names": ["a", "b"], "share": 0.1, "nothing": None}


def steps(path: Path, num: int, kind: str = "learn") -> None:
    """A run of a few steps; step n holds the number n."""
    with run_folder.create(path, kind, CONFIG, {"n": np.array(0)}, {"n": 0}) as folder:
        for n in range(1, num + 1):
            folder.commit(f"step{n}", {"n": np.array(n)}, {"n": n})


def last(path: Path, *kinds: str) -> tuple[int, dict]:
    with run_folder.opened(path, *(kinds or ("learn",))) as folder:
        tree, info = folder.last()
        return int(tree["n"]), {**info, "config": folder.config}


def newest(path: Path) -> Path:
    return max((path / "checkpoints").iterdir())


def flip(checkpoint: Path) -> None:
    file = max((p for p in checkpoint.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def test_the_last_step_comes_back_with_the_options(tmp_path):
    steps(tmp_path / "run", 3)
    assert last(tmp_path / "run") == (3, {"n": 3, "config": CONFIG})


def test_a_folder_can_be_resumed_from_the_moment_it_exists(tmp_path):
    steps(tmp_path / "run", 0)
    assert last(tmp_path / "run")[0] == 0
    assert os.listdir(tmp_path) == ["run"]


def test_two_steps_are_kept(tmp_path):
    steps(tmp_path / "run", 5)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["000004_step4", "000005_step5"]


def test_a_run_goes_on_behind_the_step_it_was_resumed_from(tmp_path):
    steps(tmp_path / "run", 2)
    flip(newest(tmp_path / "run"))
    with run_folder.opened(tmp_path / "run", "learn") as folder:
        assert folder.last().info == {"n": 1}
        folder.commit("again", {"n": np.array(7)}, {"n": 7})
    assert last(tmp_path / "run")[0] == 7
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert "000002_again" in names


def test_a_damaged_step_is_passed_over_with_a_warning(tmp_path, caplog):
    steps(tmp_path / "run", 3)
    flip(newest(tmp_path / "run"))
    assert last(tmp_path / "run")[0] == 2
    assert "000003_step3" in caplog.text
    assert "altered" in caplog.text


def test_an_unusable_step_is_passed_over(tmp_path, caplog):
    steps(tmp_path / "run", 3)
    with run_folder.opened(tmp_path / "run", "learn") as folder:
        usable = lambda info: "the file is gone" if info["n"] == 3 else None
        assert folder.last(usable).info == {"n": 2}
    assert "the file is gone" in caplog.text


def test_nothing_whole_is_an_error_that_says_how_to_start_again(tmp_path):
    steps(tmp_path / "run", 1)
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        flip(checkpoint)
    with pytest.raises(errors.FileError, match="no whole checkpoint") as caught:
        last(tmp_path / "run")
    assert "--config" in caught.value.remedy


def test_a_moved_run_resumes(tmp_path):
    steps(tmp_path / "run", 2)
    (tmp_path / "elsewhere").mkdir()
    os.rename(tmp_path / "run", tmp_path / "elsewhere" / "renamed")
    assert last(tmp_path / "elsewhere" / "renamed")[0] == 2


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_run_whose_folder_goes_away_ends_and_leaves_nothing_behind(tmp_path, how):
    steps(tmp_path / "run", 2)

    def meanwhile():
        with run_folder.opened(tmp_path / "run", "learn") as folder:
            folder.last()
            if how == "moved":
                os.rename(tmp_path / "run", tmp_path / "elsewhere")
            else:
                shutil.rmtree(tmp_path / "run")
            folder.commit("step3", {"n": np.array(3)}, {"n": 3})

    with pytest.raises(errors.MovedError, match="moved or removed") as caught:
        meanwhile()
    assert "resume it there" in caught.value.remedy
    assert os.listdir(tmp_path) == (["elsewhere"] if how == "moved" else [])
    if how == "moved":
        assert last(tmp_path / "elsewhere")[0] == 2


def test_a_new_folder_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new"
    with run_folder.new_folder(path) as folder:
        (folder / "text").write_text("whole")
        assert not path.exists()
        with pytest.raises(errors.LockedError, match="working"), run_folder.new_folder(path):
            pass
    assert os.listdir(tmp_path) == ["new"]
    assert os.listdir(path) == ["text"]
    with pytest.raises(errors.OutputError, match="not empty"), run_folder.new_folder(path):
        pass
    with pytest.raises(ZeroDivisionError), run_folder.new_folder(tmp_path / "other"):
        1 / 0  # noqa: B018
    assert os.listdir(tmp_path) == ["new"]


def test_a_run_of_another_kind_is_refused_with_the_command_that_continues_it(tmp_path):
    steps(tmp_path / "run", 1, kind="md")
    with pytest.raises(errors.FileError, match="a run of jaxvae-md md") as caught:
        last(tmp_path / "run", "learn", "fit")
    assert f"jaxvae-md md --resume {tmp_path / 'run'}" in caught.value.remedy
    assert last(tmp_path / "run", "learn", "md")[0] == 1


def test_a_foreign_folder_and_none_are_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    for name, words in (("full", "holds no run"), ("nothing", "no such folder")):
        with pytest.raises(errors.FileError, match=words):
            last(tmp_path / name)
    assert os.listdir(tmp_path / "full") == ["mine.txt"]


def test_edited_options_are_refused_and_missing_ones_restored(tmp_path):
    steps(tmp_path / "run", 1)
    path = tmp_path / "run" / "config.yaml"
    whole = path.read_text()
    for edited in (whole.replace("seed: 0", "seed: 1"), whole[:20], ""):
        path.write_text(edited)
        with pytest.raises(errors.FileError, match="options were edited") as caught:
            last(tmp_path / "run")
        assert caught.value.file == path
    path.write_text("# options are what counts\n" + whole)
    assert last(tmp_path / "run")[0] == 1
    path.unlink()
    assert last(tmp_path / "run")[0] == 1
    assert path.read_text() == whole


def test_a_folder_in_another_precision_is_refused(tmp_path):
    steps(tmp_path / "run", 1)
    with jax.enable_x64(False), pytest.raises(errors.OptionError, match="float64") as caught:
        last(tmp_path / "run")
    assert "jax_enable_x64" in caught.value.remedy


def test_a_failure_keeps_what_it_knows_and_says_how_to_go_on(tmp_path):
    def fail(kind):
        with run_folder.opened(tmp_path / "my run", "md") as folder:
            folder.last()
            raise kind("no", frame=3, atom=7, remedy="do this")

    config = {"labeller": "my_dft:label"}
    with run_folder.create(tmp_path / "my run", "md", config, {"a": np.zeros(1)}, {}):
        pass
    with pytest.raises(errors.RunError) as caught:
        fail(errors.RunError)
    assert (caught.value.frame, caught.value.atom) == (3, 7)
    words = f"jaxvae-md md --resume '{tmp_path / 'my run'}' --labeller my_dft:label continues"
    assert words in caught.value.remedy
    with pytest.raises(errors.SimulationError) as caught:
        fail(errors.SimulationError)
    assert caught.value.remedy == "do this"


def test_several_may_read_a_run_and_change_nothing(tmp_path):
    steps(tmp_path / "run", 2)
    (tmp_path / "run" / "config.yaml").unlink()
    before = sorted(tmp_path.rglob("*"))
    with run_folder.opened(tmp_path / "run", "learn", read_only=True) as one:
        with run_folder.opened(tmp_path / "run", "learn", read_only=True) as other:
            assert one.last().info == other.last().info
        with (
            pytest.raises(errors.LockedError, match="working"),
            run_folder.opened(tmp_path / "run", "learn"),
        ):
            pass
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "run" / ".lock").unlink()
    with run_folder.opened(tmp_path / "run", "learn", read_only=True) as one:
        assert one.last()


def test_an_empty_folder_may_be_a_link_but_not_the_current_one(tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "scratch")
    steps(tmp_path / "run", 1)
    assert (tmp_path / "scratch" / "config.yaml").is_file()
    assert (tmp_path / "run").is_symlink()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(errors.OutputError, match="current one") as caught:
        run_folder.check_free(Path("."))
    assert "--out run" in caught.value.remedy


def test_a_full_disk_keeps_the_last_step_and_the_lock(tmp_path):
    steps(tmp_path / "run", 1)
    with run_folder.opened(tmp_path / "run", "learn") as folder:
        folder.last()
        with file_size_limit(0), pytest.raises(errors.WriteError):
            folder.commit("step2", {"n": np.array(2)}, {"n": 2})
    with file_size_limit(0):
        assert last(tmp_path / "run")[0] == 1


def test_a_folder_that_is_not_free_is_left_alone(tmp_path):
    steps(tmp_path / "run", 1)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    for name, words in (("run", "another run"), ("file", "is a file"), ("full", "not empty")):
        with pytest.raises(errors.OutputError, match=words):
            steps(tmp_path / name, 1)
    assert sorted(os.listdir(tmp_path)) == ["file", "full", "run"]
    assert last(tmp_path / "run")[0] == 1


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "run").mkdir()
    steps(tmp_path / "run", 1)
    assert last(tmp_path / "run")[0] == 1


def test_a_start_that_failed_leaves_no_run_and_does_not_hinder_the_next(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run_folder.create(
            tmp_path / "run", "learn", CONFIG, {"n": np.array(0)}, {}, lambda folder: 1 / 0
        ).__enter__()
    assert os.listdir(tmp_path) == []
    steps(tmp_path / "run", 1)
    assert os.listdir(tmp_path) == ["run"]


def test_what_a_killed_start_left_is_cleared_away(tmp_path):
    left = tmp_path / ".new-run"
    (left / "checkpoints").mkdir(parents=True)
    (left / "config.yaml").write_text("seed: 7")
    steps(tmp_path / "run", 1)
    assert os.listdir(tmp_path) == ["run"]
    assert "seed: 7" not in (tmp_path / "run" / "config.yaml").read_text()


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    steps(tmp_path / "run", 1)
    code = (
        "import sys, time\n"
        "from jaxvae_md import run_folder\n"
        "with run_folder.opened(sys.argv[1], 'learn'):\n"
        "    print('here', flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "here\n"
        with pytest.raises(errors.LockedError, match=f"process {other.pid} on") as caught:
            last(tmp_path / "run")
        assert caught.value.remedy
        other.kill()
        other.wait()
    # the lock of a killed process is none
    assert last(tmp_path / "run")[0] == 1


def fail_in(path: Path) -> None:
    with run_folder.opened(path, "learn") as folder:
        folder.last()
        raise errors.RunError("it blew up", remedy="take smaller steps")


def test_a_failed_run_says_how_to_go_on(tmp_path):
    steps(tmp_path / "run", 1)
    with pytest.raises(errors.RunError, match="blew up") as caught:
        fail_in(tmp_path / "run")
    assert "take smaller steps" in caught.value.remedy
    assert f"jaxvae-md learn --resume {tmp_path / 'run'}" in caught.value.remedy
