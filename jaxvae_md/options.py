"""Options: frozen dataclasses, and the plain types that YAML and JSON have for them."""

from __future__ import annotations

from dataclasses import asdict, fields
from difflib import get_close_matches
from typing import Any, TypeVar

import numpy as np

from jaxvae_md.errors import OptionError

Options = TypeVar("Options")


def as_plain(options: Any) -> dict[str, Any]:
    """A dataclass as a dict of plain types: tuples become lists.

    ```python
    yaml.safe_dump(as_plain(Config(seed=1)))
    ```
    """
    return {name: _plain(value) for name, value in asdict(options).items()}


def from_plain(kind: type[Options], values: dict[str, Any]) -> Options:
    """The dataclass of plain types. **Raises:** `OptionError`, also for unknown names.

    ```python
    from_plain(Config, {"seed": 1, "hidden": [64, 64]})
    ```
    """
    known = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
    for name in values:
        if name not in known:
            close = get_close_matches(str(name), known, 1)
            raise OptionError(
                f"unknown option {name!r}",
                remedy=f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}",
            )
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value
