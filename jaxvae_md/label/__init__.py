"""Labels: a structure to energy, forces and stress, by potentials, calculators and functions."""

from jaxvae_md.label.answer import Label as Label
from jaxvae_md.label.answer import asked as asked
from jaxvae_md.label.answer import label as label
from jaxvae_md.label.espresso import Espresso as Espresso
from jaxvae_md.label.farm import Labelled as Labelled
from jaxvae_md.label.farm import Rejected as Rejected
from jaxvae_md.label.farm import label_many as label_many
from jaxvae_md.label.labellers import calculator_labeller as calculator_labeller
from jaxvae_md.label.labellers import get_labeller as get_labeller
from jaxvae_md.label.labellers import potential_labeller as potential_labeller
from jaxvae_md.label.reference import check_reference as check_reference
from jaxvae_md.label.reference import check_same_reference as check_same_reference
from jaxvae_md.label.reference import reference_of as reference_of
from jaxvae_md.label.store import remembered as remembered
