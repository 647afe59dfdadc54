"""The distances and angles that a descriptor encodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk

from jaxvae_md.descriptors import chebyshev, describe, distributions
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import neighbor_list
from tests import systems
from tests.asserts import assert_close, assert_gradient

RADIAL, ANGULAR = 5.0, 4.0


def midpoints(low: float, high: float, num: int) -> tuple[np.ndarray, float]:
    step = (high - low) / num
    return low + step * (np.arange(num) + 0.5), step


@pytest.mark.parametrize("species", [systems.SI, systems.SIO2])
def test_undamped_densities_have_the_moments_that_the_descriptor_holds(species):
    structure = systems.sio2() if len(species) == 2 else systems.triclinic()
    descriptor = chebyshev(species, RADIAL, 7, ANGULAR, 5)
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure)
    x = jax.jit(descriptor)(structure, neighbors)
    # in phi the radial density is a polynomial in cosines, which the midpoint rule integrates
    phi, step = midpoints(0, np.pi, 400)
    r = RADIAL * (np.cos(phi) + 1) / 2
    view = distributions(descriptor, x, r, phi, damped=False)
    jacobian = RADIAL / 2 * np.sin(phi)
    radial = [view.radial @ (np.cos(n * phi) * jacobian) * step for n in range(8)]
    angular = [view.angular @ np.cos(n * phi) * step for n in range(6)]
    columns = [*radial, *angular]
    if len(species) == 2:
        columns += [view.weighted_radial @ (np.cos(n * phi) * jacobian) * step for n in range(8)]
        columns += [view.weighted_angular @ np.cos(n * phi) * step for n in range(6)]
    else:
        assert view.weighted_radial is None
    assert_close(np.stack(columns, axis=1), x, 1e-12)


def test_peaks_are_at_the_distances_and_angles_of_diamond():
    descriptor = chebyshev(("Si",), RADIAL, 40, 3.0, 20)
    (x,) = describe([bulk("Si", cubic=True)], descriptor)
    r, _ = midpoints(0.5, RADIAL - 0.5, 900)
    theta, turn = midpoints(0, np.pi, 900)
    view = distributions(descriptor, x[0], r, theta)
    near = r < 3.1
    assert abs(r[near][np.argmax(view.radial[near])] - 5.43 * 3**0.5 / 4) < 0.05
    assert abs(r[~near][np.argmax(view.radial[~near])] - 5.43 / 2**0.5) < 0.1
    assert abs(np.degrees(theta[np.argmax(view.angular)]) - 109.47) < 2
    assert view.radial.min() > 0
    assert view.angular.min() > 0
    # six angles among four neighbors, each with the square of the cutoff function
    cutoff = 0.5 * (np.cos(np.pi * 5.43 * 3**0.5 / 4 / 3.0) + 1)
    assert_close(view.angular.sum() * turn, 6 * cutoff**2, 1e-6)


def test_densities_are_differentiable_in_positions_through_the_descriptor():
    structure = systems.si8()
    descriptor = chebyshev(systems.SI, RADIAL, 4, ANGULAR, 3)
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure, extra=1.2)

    def seen(position):
        x = descriptor(structure._replace(position=position), neighbors)
        view = distributions(descriptor, x, jnp.array([2.4]), jnp.array([1.9]))
        return jnp.sum(view.radial[0] * view.angular[0])

    assert_gradient(seen, structure.position)


def test_descriptors_of_another_width_are_refused():
    descriptor = chebyshev(systems.SI, RADIAL, 4, ANGULAR, 3)
    with pytest.raises(OptionError, match="x has 12 columns, and the descriptor 9"):
        distributions(descriptor, np.zeros((2, 12)), np.ones(1), np.ones(1))
