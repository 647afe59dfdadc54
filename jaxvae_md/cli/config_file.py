"""Options of a run as plain types, from the command line and a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxvae_md.errors import FileError, OptionError

EMBEDDED = "embedded-silicon"
"""what a run without a file notes as its data"""
SETS = {EMBEDDED: "silicon", "silicon-dft": "silicon_dft"}
"""names that stand for data of the package, and the functions of `datasets`"""
_QUICK: dict[str, Any] = {
    "num_generated": 4,
    "vae_steps": 1500,
    "vae_copies": 0,
    "coverage_steps": 500,
    "lj_steps": 200,
    "fit_steps": 1500,
    "refit_steps": 500,
    "md_steps": 400,
    "refine_updates": 2,
    "refine_window": 20,
    "refine_replicas": 2,
    "stability_steps": 1000,
}


def gathered(config: Path | None, quick: bool = False, **given: Any) -> dict[str, Any]:
    """Options of `--quick`, then of the file, then those given (what is not None) win.

    **Raises:** `FileError`; `OptionError` when the file names code that the command line does not.
    """
    options = dict(_QUICK) if quick else {}
    if config is not None:
        options |= _read(config)
        name = options.get("labeller", "")
        if ":" in str(name) and given.get("labeller") is None:
            raise OptionError(
                f"the labeller is {name}; code is only imported when you name it yourself",
                file=config,
                remedy=f"give --labeller {name} beside --config",
            )
    return options | {name: value for name, value in given.items() if value is not None}


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        options = yaml.safe_load(text)
        if not isinstance(options, dict):
            raise ValueError("no mapping of names to values")
        # YAML forbids a name twice; the parser takes the last
        names = [key.value for key, _ in yaml.compose(text, yaml.SafeLoader).value]
        if len(set(names)) < len(names):
            raise ValueError(f"{max(names, key=names.count)!r} is there twice")
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise FileError(
            f"cannot be read as options ({reason})", file=path, remedy="give lines like seed: 1"
        ) from None
    if options.get("data") not in (None, *SETS):
        options["data"] = str(path.parent / str(options["data"]))
    return options
