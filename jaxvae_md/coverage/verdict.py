"""What a person reads: which atoms are outside the data, what they look like, and since when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvae_md.coverage.kinds import Nearest
from jaxvae_md.coverage.model import CoverageModel, frame_score
from jaxvae_md.coverage.surroundings import Surroundings

_AS_ALIKE = 1.5
"""environments of a group differ by at most this times the median distance to a nearest one"""
_IN_A_ROW = 3
_SHOWN = 3
_SURE = 0.01
"""so many frames outside are no chance when their probability is below it"""


class Group(NamedTuple):
    """Atoms outside the data that look alike."""

    frame: int
    """and atom: the one that is most like the others"""
    atom: int
    size: int
    kind: int
    """label index that it resembles most"""
    probability: float


class Verdict(NamedTuple):
    """What a person reads, and what it is made of."""

    sentence: str
    outside: Bool[np.ndarray, " m"]
    """atoms whose score exceeds the threshold, of all frames one after the other"""
    share: float
    frames: Int[np.ndarray, " k"]
    """frames whose score exceeds the threshold of structures"""
    left_at: int | None
    """the first of three frames in a row that are outside, or of the last two"""
    groups: list[Group]
    """the largest first"""


def verdict(
    model: CoverageModel,
    scores: Sequence[Float[np.ndarray, " n"]],
    found: Sequence[Nearest],
    surroundings: Sequence[Surroundings],
    labels: Sequence[str],
    name: str = "NEW",
) -> Verdict:
    """A few sentences on whether frames are covered by the training data.

    **Arguments:** `scores`, `found` and `surroundings` of each frame's atoms, as `score`,
    `nearest` and `surroundings` give them (for atoms of unknown elements an infinite score, and
    -1 for the nearest structure);
    `labels` the names of the kinds.

    ```python
    y = surroundings(frames, descriptor, standardizer, 2.35)
    scores, found = [score(model, part) for part in y], [nearest(model, part) for part in y]
    print(verdict(model, scores, found, y, labels).sentence)
    ```
    """
    from scipy.stats import binom  # half a second

    by_frame = [np.asarray(part) > float(model.threshold) for part in scores]
    outside, expected = np.concatenate(by_frame), float(model.false_alarm)
    share = float(outside.mean())
    beyond = np.array([frame_score(part) > float(model.frame_threshold) for part in scores])
    frames = np.nonzero(beyond)[0]
    groups = _groups(by_frame, found, surroundings)
    expectation = f"{expected:.0%} would by chance"
    total = f"{share:.1%} of its {len(outside)} atoms look unlike the training data"
    details = _of_highest(scores) + _of_groups(groups, labels) + _of_nearest(by_frame, found)
    left, num = left_at(beyond), len(scores)
    # of several frames some are outside by chance
    by_chance = num > 1 and binom.sf(len(frames) - 1, num, expected) > _SURE
    if not len(frames) and share <= 2 * expected:
        sentence = f"{name} is covered: {total}, and {expectation}."
    elif by_chance and left is None and share <= 2 * expected:
        sentence = f"{name} is covered but perhaps for {listed('frame', frames)}: "
        sentence += f"{total}, and {expectation}.{details}"
    else:
        sentence = f"{share:.1%} of the {len(outside)} atoms of {name} are outside the training "
        sentence += f"data ({expectation})"
        if num > 1:
            sentence += f"; {len(frames)} of {num} frames are outside as a whole"
            sentence += f", the first of them frame {frames[0]}" if len(frames) else ""
        sentence += f".{details}"
    return Verdict(sentence, outside, share, frames, left, groups)


def left_at(beyond: Bool[np.ndarray, " k"]) -> int | None:
    """First of three consecutive frames that are outside, or of the last two; None if none is.

    A single frame outside is a false alarm now and then; a trajectory that has left stays out.

    ```python
    left_at(np.array([False, True, False, True, True, True]))  # 3
    ```
    """
    for first in np.nonzero(beyond)[0]:
        here = beyond[first : first + _IN_A_ROW]
        if np.all(here) and len(here) > 1:
            return int(first)
    return None


def listed(word: str, numbers: Sequence[int] | Int[np.ndarray, " k"]) -> str:
    """Numbers in words: "frames 3, 5 and 8".

    ```python
    listed("frame", [3, 5, 8])
    ```
    """
    names = [str(int(n)) for n in numbers]
    if len(names) > _SHOWN + 2:
        names = [*names[:_SHOWN], f"{len(names) - _SHOWN} more"]
    return (
        f"{word} {names[0]}"
        if len(names) == 1
        else (f"{word}s {', '.join(names[:-1])} and {names[-1]}")
    )


def _of_highest(scores: Sequence[Float[np.ndarray, " n"]]) -> str:
    """Where to look first: in the frame of the highest score, the four highest."""
    finite = [np.where(np.isfinite(part), part, -np.inf) for part in scores]
    frame = int(np.argmax([part.max() for part in finite]))
    atoms = np.argsort(-finite[frame])[:4]
    return f" The highest scores are those of {listed('atom', atoms)} in frame {frame}."


def _of_groups(groups: list[Group], labels: Sequence[str]) -> str:
    if not groups:
        return ""
    first = groups[0]
    seen = f"atom {first.atom} of frame {first.frame}"
    alike = f"most like {labels[first.kind]} of what is known ({first.probability:.0%})"
    if len(groups) == 1 and first.size > 1:
        return f" They look alike: see {seen}, {alike}."
    if first.size == 1:
        return f" No two of them look alike; see {seen}, {alike}."
    return f" The largest group that looks alike has {first.size} atoms: see {seen}, {alike}."


def _of_nearest(by_frame, found: Sequence[Nearest]) -> str:
    """Which training frames the atoms outside are nearest to."""
    pairs = zip(found, by_frame, strict=True)
    known = np.concatenate([np.asarray(like.structure)[out] for like, out in pairs])
    structures, counts = np.unique(known[known >= 0], return_counts=True)
    if not len(structures):
        return ""
    return f" Nearest to them are training {listed('frame', structures[np.argsort(-counts)[:3]])}."


def _groups(
    by_frame: Sequence[Bool[np.ndarray, " n"]],
    found: Sequence[Nearest],
    surroundings: Sequence[Surroundings],
    max_groups: int = 6,
    max_atoms: int = 2000,
) -> list[Group]:
    """Greedy: the atom with the most others close by, and these, until all have a group."""
    place = np.array(
        [
            (number, atom)
            for number, out in enumerate(by_frame)
            for atom in np.nonzero(out & (np.asarray(found[number].structure) >= 0))[0]
        ]
    ).reshape(-1, 2)
    if not len(place):
        return []
    scale = max(1, len(place) / max_atoms)
    if scale > 1:
        kept = np.random.default_rng(0).permutation(len(place))[:max_atoms]
        place = place[np.sort(kept)]
    points = np.array([np.asarray(surroundings[f].near)[a] for f, a in place])
    square = np.sum(points**2, axis=1)
    apart = np.sqrt(np.maximum(square[:, None] + square - 2 * points @ points.T, 0))
    close = np.ones((1, 1), bool)
    if len(place) > 1:
        close = apart <= _AS_ALIKE * np.median(np.sort(apart, axis=1)[:, 1]) + 1e-6
    left, groups = np.ones(len(place), bool), []
    while left.any() and len(groups) < max_groups:
        counts = np.sum(close & left, axis=1) * left
        centre = int(np.argmax(counts))
        frame, atom = map(int, place[centre])
        probability = np.asarray(found[frame].probability)[atom]
        kind = int(np.argmax(probability))
        size = round(scale * int(counts[centre]))
        groups.append(Group(frame, atom, size, kind, float(probability[kind])))
        left &= ~close[centre]
    return groups
