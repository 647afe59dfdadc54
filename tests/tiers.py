"""Which cases of a parametrised test run by default."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest


def some_slow(cases: Mapping[str, Any] | Iterable[str], *default: str) -> list[Any]:
    """The cases, those that are not among the default ones marked slow.

    For `parametrize`: a mapping gives its values under the names, what else there is the names.
    """
    named = cases.items() if isinstance(cases, Mapping) else [(name, name) for name in cases]
    assert set(default) < {name for name, _ in named}
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            id=name,
            marks=() if name in default else pytest.mark.slow,
        )
        for name, case in named
    ]
