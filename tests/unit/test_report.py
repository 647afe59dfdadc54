import base64
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxvae_md.errors import FileError, WriteError
from jaxvae_md.report import Picture, Section, Table, save_figure, write_report

NASTY = "<script>alert(\"x\")</script> & 'more'"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags in order, whether they are balanced, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def figure() -> Figure:
    drawing = Figure(figsize=(4, 3), dpi=100)
    drawing.subplots().plot([0, 1])
    return drawing


def sections(tmp_path) -> list[Section]:
    save_figure(figure(), tmp_path / "saved.png")
    table = Table(NASTY, ["name", NASTY], [[NASTY, 1.23456789], ["b", None]])
    pictures = [Picture(figure(), NASTY), Picture(tmp_path / "saved.png", "saved", alt="a line")]
    return [
        Section("First " + NASTY, "One.\n\nTwo " + NASTY, pictures, [table]),
        Section("Second"),
        Section("Third", tables=[table]),
    ]


def write(tmp_path, **arguments) -> Page:
    path = tmp_path / "report.html"
    write_report(path, NASTY, "Summary " + NASTY, [("fact" + NASTY, NASTY)], **arguments)
    return Page(path.read_text(encoding="utf-8"))


def test_report_is_self_contained_and_in_order(tmp_path):
    page = write(tmp_path, sections=sections(tmp_path))
    images = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(images) == 2
    for image in images:
        head, data = image.split(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    links = [value for _, name, value in page.attributes if name in ("href", "src")]
    assert all(link.startswith(("#section-", "data:image/png")) for link in links)
    assert "script" not in page.tags
    assert "link" not in page.tags
    order = [page.text.index(word) for word in ("Table 1.", "Figure 1.", "Figure 2.", "Table 2.")]
    assert order == sorted(order)
    ids = {f"#{value}" for _, name, value in page.attributes if name == "id"}
    assert {link for link in links if link.startswith("#")} == ids


def test_every_text_is_escaped_and_every_picture_described(tmp_path):
    page = write(tmp_path, sections=sections(tmp_path))
    assert page.text.count("<script>") == page.text.count(NASTY) > 8  # as text, never as a tag
    alts = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert alts == [NASTY, "a line"]


def test_report_suits_dark_screens_and_paper(tmp_path):
    write(tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert 'lang="en"' in text


def test_numbers_are_rounded_aligned_and_never_hidden(tmp_path):
    values = [1.23456789, -0.5, 12345, np.float32(2.5), np.int64(3), float("nan"), True, np.False_]
    page = write(
        tmp_path, sections=[Section("a", tables=[Table("t", ["x"], [[v] for v in values])])]
    )
    cells = re.findall(r"<td[^>]*>(.*?)</td>", (tmp_path / "report.html").read_text())
    assert cells == ["1.235", "&minus;0.5", "12,345", "2.5", "3", "nan", "yes", "no"]
    assert ("th", "class", "number") in page.attributes


def test_pictures_have_their_printed_size(tmp_path):
    page = write(tmp_path, sections=[Section("a", pictures=[Picture(figure(), "c")])])
    assert ("img", "width", str(4 * 96)) in page.attributes
    assert ("img", "height", str(3 * 96)) in page.attributes


def test_report_and_figures_are_reproducible(tmp_path):
    save_figure(figure(), tmp_path / "a.png")
    save_figure(figure(), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.png"]


def test_figures_are_saved_with_150_dots_per_inch_in_new_folders(tmp_path):
    path = tmp_path / "new" / "folder" / "a.png"
    save_figure(figure(), path)
    width, height = (int.from_bytes(path.read_bytes()[i : i + 4], "big") for i in (16, 20))
    assert (width, height) == (600, 450)


def test_failed_report_leaves_the_old_one(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    (tmp_path / "no.png").write_text("text")
    for name in ("no.png", "absent.png"):
        with pytest.raises(FileError, match=name):
            write_report(path, "t", "s", [], [Section("a", "", [Picture(tmp_path / name, "c")])])
    assert path.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["no.png", "report.html"]


def test_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "report.html", tmp_path):
        with pytest.raises(WriteError, match=re.escape(str(path))):
            write_report(path, "t", "s")
    assert os.listdir(tmp_path) == ["file"]
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}*"))


def test_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "a.png").write_text("old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(WriteError, match="No space left"):
        save_figure(figure(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.png"]
