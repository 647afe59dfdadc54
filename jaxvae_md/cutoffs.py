"""Smooth switches shared by descriptors and potentials."""

from __future__ import annotations

from math import factorial, pi

import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxvae_md._typing import Array

_TAYLOR = 11
"""terms beyond the first: the next is below 1e-17 at pi/2"""


def cosine(distance: Float[Array, ...], cutoff: float) -> Float[Array, ...]:
    """Cosine cutoff: (cos(pi r / Rc) + 1) / 2 within the cutoff, 0 beyond.

    **Arguments:** distances and cutoff, both in angstrom. **Returns:** dimensionless.
    **Source:** Behler and Parrinello, Phys. Rev. Lett. 98, 146401 (2007).

    ```python
    cosine(jnp.array([0.0, 2.0, 5.0]), cutoff=4.0)  # [1, 0.5, 0]
    ```
    """
    return cosine_and_slope(distance, cutoff)[0]


def cosine_and_slope(
    distance: Float[Array, ...], cutoff: float
) -> tuple[Float[Array, ...], Float[Array, ...]]:
    """The cosine cutoff and its derivative by the distance (1/angstrom).

    As cos(h)^2 with h = pi r / (2 Rc) by Taylor series, exact to rounding on [0, pi/2]: XLA would
    compute a cosine again, and slowly, wherever the result is used.

    ```python
    value, slope = cosine_and_slope(jnp.array([2.0]), cutoff=4.0)  # 0.5, -pi / 8
    ```
    """
    scale = pi / (2 * cutoff)
    # clipped, so that padded distances neither overflow nor contribute
    h = scale * jnp.minimum(distance, cutoff)
    square = h**2
    cos = sinc = jnp.zeros_like(square)
    for k in range(_TAYLOR, -1, -1):
        cos = cos * square + (-1) ** k / factorial(2 * k)
        sinc = sinc * square + (-1) ** k / factorial(2 * k + 1)
    inside = distance < cutoff
    return jnp.where(inside, cos**2, 0), jnp.where(inside, -2 * scale * cos * h * sinc, 0)


def within(square: Float[Array, ...], cutoff: float) -> tuple[Bool[Array, ...], Float[Array, ...]]:
    """Whether r is below the cutoff, and r squared brought to that of the cutoff where it is not.

    What is computed from the second is finite, so that masked by the first it has a derivative
    (zero) for padded slots too. What is not a number counts as below, and shows.

    ```python
    inside, square = within(jnp.array([1.0, 9.0]), cutoff=2.0)  # [True, False], [1, 4]
    ```
    """
    inside = ~(square >= cutoff**2)
    return inside, jnp.where(inside, square, jnp.asarray(cutoff**2, square.dtype))


def switch(
    square: Float[Array, ...], onset: float, cutoff: float
) -> tuple[Float[Array, ...], Float[Array, ...]]:
    """A smooth step from 1 at the onset to 0 at the cutoff, and its slope, by r squared.

        S = 1 - 10 x^3 + 15 x^4 - 6 x^5,  x = (r^2 - onset^2) / (cutoff^2 - onset^2)

    Two derivatives are continuous; no square root is taken. **Arguments:** r squared in
    angstrom^2, onset and cutoff in angstrom.

    ```python
    factor, slope = switch(jnp.array([4.0, 25.0]), onset=3.0, cutoff=4.0)  # [1, 0], [0, 0]
    ```
    """
    scale = 1 / (cutoff**2 - onset**2)
    x = jnp.clip((square - onset**2) * scale, 0, 1)
    return 1 - x**3 * (10 - x * (15 - 6 * x)), -30 * scale * x**2 * (1 - x) ** 2
