"""Units: eV, angstrom, amu, fs and K outside; derived constants (CODATA 2018).

Inside the integrators time is measured in angstrom sqrt(amu / eV), the unit in which force over
mass is an acceleration; `FEMTOSECOND` converts.

| quantity | unit |
|---|---|
| energy | eV |
| length | angstrom |
| mass | amu |
| time | fs |
| temperature | K |
| pressure, stress | eV / angstrom^3 (`GIGAPASCAL` converts) |
"""

_ELECTRONVOLT = 1.602176634e-19  # J
_ATOMIC_MASS = 1.66053906660e-27  # kg

BOLTZMANN = 8.617333262e-5
"""eV / K"""

FEMTOSECOND = (_ELECTRONVOLT / _ATOMIC_MASS) ** 0.5 * 1e-5
"""One fs in units of angstrom sqrt(amu / eV): about 0.0982."""

GIGAPASCAL = 1e9 * 1e-30 / _ELECTRONVOLT
"""One GPa in eV / angstrom^3: about 0.00624."""
