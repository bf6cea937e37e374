"""The graph of a workflow, small enough to be looked at: what is many of one kind is one box with counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from carillon.ledger.steps import DECIDED, SeenStep

#: So many steps of one name, side by side or one after the other, are shown one by one; more are one box.
MOST_SINGLE = 6
#: No graph has more boxes: those in the middle are one.
MOST_BOXES = 200
#: The kind of the box that has those.
REST = "rest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One step, or many of one kind and name."""

    #: The number of its first step, and of its last one.
    first: int
    last: int
    kind: str
    name: str
    #: The step, where it is one.
    step: SeenStep | None
    #: How many of its steps are in which state.
    counts: Mapping[str, int]
    #: How many boxes one after the other lead here, from 0 on.
    layer: int
    #: The boxes that it came after, by their first steps.
    after: Sequence[int]


def graph(steps: Sequence[SeenStep]) -> list[Box]:
    """The boxes of a workflow's steps, by the order in which they were asked for first."""
    before = predecessors(steps)
    depths = _depths(steps, before)
    parts = _bounded(_parts(steps, depths))
    box_of = {step.seq: part[0].seq for part in parts for step in part}
    ranks = {depth: at for at, depth in enumerate(sorted({_depth(part, depths) for part in parts}))}
    layers = {part[0].seq: ranks[_depth(part, depths)] for part in parts}
    return [_box(part, layers, _edges(part, before, box_of, layers)) for part in parts]


def predecessors(steps: Iterable[SeenStep]) -> dict[int, Sequence[int]]:
    """What each step came after, also where another one that was asked for with it has that."""
    found: dict[int, Sequence[int]] = {}
    for step in steps:
        found[step.seq] = step.after if step.beside is None else found[step.beside]
    return found


def _depths(steps: Sequence[SeenStep], before: Mapping[int, Sequence[int]]) -> dict[int, int]:
    depths: dict[int, int] = {}
    of_burst = 0
    for step in steps:
        if step.beside is None:
            of_burst = 1 + max((depths[seq] for seq in before[step.seq]), default=-1)
        depths[step.seq] = of_burst
    return depths


def _parts(steps: Sequence[SeenStep], depths: Mapping[int, int]) -> list[list[SeenStep]]:
    """The steps that share a box, box by box."""
    named: dict[tuple[str, str], list[SeenStep]] = {}
    for step in steps:
        named.setdefault((step.kind, step.name), []).append(step)
    parts = [part for (kind, _), members in named.items() for part in _folded(kind, members, depths)]
    return sorted(parts, key=lambda part: part[0].seq)


def _folded(kind: str, members: Sequence[SeenStep], depths: Mapping[int, int]) -> list[list[SeenStep]]:
    """Steps of one name: those whose depths follow each other are one box, if they are many."""
    by_depth = sorted(members, key=lambda step: (depths[step.seq], step.seq))
    places = {depth: at for at, depth in enumerate(sorted({depths[step.seq] for step in members}))}
    folded: list[list[SeenStep]] = []
    for _, stretch in groupby(by_depth, lambda step: depths[step.seq] - places[depths[step.seq]]):
        together = sorted(stretch, key=lambda step: step.seq)
        # What somebody has to decide about is never hidden.
        is_many = len(together) > MOST_SINGLE and kind not in DECIDED
        folded += [together] if is_many else [[step] for step in together]
    return folded


def _bounded(parts: list[list[SeenStep]]) -> list[list[SeenStep]]:
    if len(parts) <= MOST_BOXES:
        return parts
    half = MOST_BOXES // 2
    middle = sorted((step for part in parts[half : 1 - half] for step in part), key=lambda step: step.seq)
    return [*parts[:half], middle, *parts[1 - half :]]


def _depth(part: Sequence[SeenStep], depths: Mapping[int, int]) -> int:
    return min(depths[step.seq] for step in part)


def _edges(
    part: Sequence[SeenStep],
    before: Mapping[int, Sequence[int]],
    box_of: Mapping[int, int],
    layers: Mapping[int, int],
) -> list[int]:
    """The boxes that lead to a part; those that also come after some of it are left out."""
    bursts = {id(before[step.seq]): before[step.seq] for step in part}.values()
    found = {box_of[seq] for burst in bursts for seq in burst if seq in box_of}
    return sorted(first for first in found if layers[first] < layers[part[0].seq])


def _box(part: Sequence[SeenStep], layers: Mapping[int, int], after: Sequence[int]) -> Box:
    names = {(step.kind, step.name) for step in part}
    kind, name = names.pop() if len(names) == 1 else (REST, "steps in between")
    return Box(
        first=part[0].seq,
        last=part[-1].seq,
        kind=kind,
        name=name,
        step=part[0] if len(part) == 1 else None,
        counts=Counter(step.state for step in part),
        layer=layers[part[0].seq],
        after=after,
    )
