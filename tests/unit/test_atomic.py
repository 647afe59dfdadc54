import os

import pytest

from jaxvae_md import atomic, errors, growing
from tests.disk import file_size_limit


def test_text_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    atomic.write_text(path, "é\n")
    with pytest.raises(UnicodeEncodeError):
        atomic.write_text(path, "beta \udce9")
    assert path.read_text(encoding="utf-8") == "é\n"
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path):
    path = tmp_path / "file"
    atomic.write_text(path, "old")
    with file_size_limit(10), pytest.raises(errors.WriteError, match="too large") as caught:
        atomic.write_text(path, "new" * 100)
    assert caught.value.file == path
    assert "make room" in caught.value.remedy
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_growing_file_is_what_was_appended(tmp_path):
    path = tmp_path / "thermo.csv"
    mark = growing.append(path, "step\n", None)
    mark = growing.append(path, "é\n", mark)
    assert path.read_text(encoding="utf-8") == "step\né\n"
    assert mark.length == path.stat().st_size
    assert growing.is_intact(path, mark)


def test_what_was_written_behind_a_mark_is_cut_off(tmp_path):
    path = tmp_path / "thermo.csv"
    mark = growing.append(path, "one\n", None)
    growing.append(path, "two and torn", mark)
    assert growing.is_intact(path, mark)
    growing.append(path, "two\n", mark)
    assert path.read_text() == "one\ntwo\n"


@pytest.mark.parametrize("content", ["one", "One\ntwo\n", ""])
def test_a_shorter_or_altered_file_is_not_intact(tmp_path, content):
    path = tmp_path / "thermo.csv"
    mark = growing.append(path, "one\ntwo\n", None)
    path.write_text(content)
    assert not growing.is_intact(path, mark)
    path.unlink()
    assert not growing.is_intact(path, mark)


def test_a_full_disk_leaves_the_mark_good(tmp_path):
    path = tmp_path / "thermo.csv"
    mark = growing.append(path, "one\n", None)
    with file_size_limit(100), pytest.raises(errors.WriteError):
        growing.append(path, "two" * 1000, mark)
    assert growing.is_intact(path, mark)
    growing.append(path, "two\n", mark)
    assert path.read_text() == "one\ntwo\n"
