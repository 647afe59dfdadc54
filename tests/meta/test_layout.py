"""The house rules that a program can check."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "jaxvae_md"
MODULES = sorted(PACKAGE.rglob("*.py"))
BY_NAME = pytest.mark.parametrize(
    "path", MODULES, ids=[str(p.relative_to(PACKAGE)) for p in MODULES]
)

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public_definitions(body: list[ast.stmt], prefix: str = ""):
    """Public functions and classes of a module, and public methods of public classes."""
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body, f"{prefix}{node.name}.")


def test_modules_are_found():
    assert len(MODULES) > 10


@BY_NAME
def test_module_has_at_most_600_lines(path):
    assert len(path.read_text().splitlines()) <= 600, "split it"


@BY_NAME
def test_module_is_no_grab_bag(path):
    assert path.stem not in ("utils", "util", "helpers", "misc", "common")


@BY_NAME
def test_nan_is_not_hidden_and_nothing_is_pickled(path):
    tree = ast.parse(path.read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            used |= {name for alias in node.names for name in alias.name.split(".")}
            used |= set((getattr(node, "module", None) or "").split("."))
    assert not used & {"nan_to_num", "pickle", "cPickle", "dill", "cloudpickle", "joblib"}


@BY_NAME
def test_everything_public_is_documented(path):
    tree = ast.parse(path.read_text())
    bare = [name for name, node in public_definitions(tree.body) if not ast.get_docstring(node)]
    assert not bare


def test_only_programs_set_jax_config():
    def sets_config(path: Path) -> bool:
        tree = ast.parse(path.read_text())
        calls = [ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)]
        return any(name.endswith("config.update") for name in calls)

    programs = {"outcome.py", "make_silicon.py", "make_silicon_dft.py"}
    assert {path.name for path in MODULES if sets_config(path)} <= programs
