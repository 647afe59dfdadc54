"""Is an environment covered by the training data? Score, threshold, nearest kind, verdict.

    y = surroundings(frames, descriptor, standardizer, nearest_distance)  # one for each frame
    model = fit(y, kinds)
    novel = score(model, y_new) > model.threshold

The score and its formulas are in `ratio`, the scores that it is compared with in `baselines`.
"""

from jaxvae_md.coverage.baselines import delta_entropy as delta_entropy
from jaxvae_md.coverage.baselines import mahalanobis as mahalanobis
from jaxvae_md.coverage.baselines import nearest_neighbors as nearest_neighbors
from jaxvae_md.coverage.baselines import negative_elbo as negative_elbo
from jaxvae_md.coverage.baselines import quests as quests
from jaxvae_md.coverage.baselines import reconstruction as reconstruction
from jaxvae_md.coverage.kinds import Kinds as Kinds
from jaxvae_md.coverage.kinds import Nearest as Nearest
from jaxvae_md.coverage.model import CoverageModel as CoverageModel
from jaxvae_md.coverage.model import Method as Method
from jaxvae_md.coverage.model import check_enough as check_enough
from jaxvae_md.coverage.model import fit as fit
from jaxvae_md.coverage.model import frame_score as frame_score
from jaxvae_md.coverage.model import nearest as nearest
from jaxvae_md.coverage.model import plain_score as plain_score
from jaxvae_md.coverage.model import score as score
from jaxvae_md.coverage.novelty import Novelty as Novelty
from jaxvae_md.coverage.novelty import fit_novelty as fit_novelty
from jaxvae_md.coverage.novelty import novelty as novelty
from jaxvae_md.coverage.ratio import LatentRatio as LatentRatio
from jaxvae_md.coverage.ratio import LocalRatio as LocalRatio
from jaxvae_md.coverage.ratio import latent_ratio as latent_ratio
from jaxvae_md.coverage.ratio import local_ratio as local_ratio
from jaxvae_md.coverage.surroundings import Surroundings as Surroundings
from jaxvae_md.coverage.surroundings import joined as joined
from jaxvae_md.coverage.surroundings import pool as pool
from jaxvae_md.coverage.surroundings import reach as reach
from jaxvae_md.coverage.surroundings import surroundings as surroundings
from jaxvae_md.coverage.surroundings import surroundings_of as surroundings_of
from jaxvae_md.coverage.verdict import Group as Group
from jaxvae_md.coverage.verdict import Verdict as Verdict
from jaxvae_md.coverage.verdict import left_at as left_at
from jaxvae_md.coverage.verdict import verdict as verdict
