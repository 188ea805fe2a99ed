"""What a remedy does to a bias, and the one rule that puts it into words.

Four questions. Does it *remove* the harm? What does it *cost*? What does it *invent* on a model or
on films in which nothing was planted? Does it *level down*, closing a gap by taking from those who
were served better? Answers are :class:`cxrlib.stats.influence.Estimate`, paired on the same films
before and after.

The rule: an answer gets every word that its 95 % interval allows, the word of its value first. So
"removes" is what holds for the whole interval, and "removes or reduces" is near the bar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cxrlib.stats.influence import Estimate, auc, average, interval, mean, spread

# Upper ends of the share of the harm that is left, and what a remedy with such a share does.
SHARES = {-1 / 3: "over-shoots", 1 / 3: "removes", 2 / 3: "reduces", 4 / 3: "leaves"}
BEYOND = "worsens"
LOSS = 0.02  # of AUC or balanced accuracy, mean over findings: less is no cost
NEW_SHIFT = 0.25  # SD: a shift on the placebo within this is none
NEW_GAP = 0.05  # of sensitivity, likewise
TAKEN = 0.02  # of sensitivity or AUC: what a group that is levelled down has lost at least


def shift(before: np.ndarray, after: np.ndarray, healthy: np.ndarray) -> Estimate:
    """Mean of after - before over healthy films, in standard deviations of before.

    before, after : (n,) margins of films and of their twins; healthy : (n,) bool
    """
    return mean(after - before, healthy) / spread(before, healthy)


def sensitivity(yes: np.ndarray, truth: np.ndarray, among: np.ndarray) -> Estimate:
    """Share of the ill among some films who get a yes, mean over findings.

    yes : (n, k) decisions, or probabilities of a yes; truth : (n, k) bool; among : (n,) bool
    """
    return average([mean(y, t & among) for y, t in zip(yes.T, truth.T, strict=True)])


def balanced_accuracy(yes: np.ndarray, truth: np.ndarray, among: np.ndarray) -> Estimate:
    """Mean of sensitivity and specificity, mean over findings; as in :func:`sensitivity`."""
    return (sensitivity(yes, truth, among) + sensitivity(1 - yes, ~truth, among)) * 0.5


def mean_auc(margins: np.ndarray, truth: np.ndarray, among: np.ndarray) -> Estimate:
    """AUC of (n, k) margins among some films, mean over findings."""
    return average([auc(t, m, among) for m, t in zip(margins.T, truth.T, strict=True)])


def brier(p: np.ndarray, truth: np.ndarray) -> Estimate:
    """Brier score of (n, k) probabilities, mean over findings."""
    return average([mean((q - t) ** 2) for q, t in zip(p.T, truth.T, strict=True)])


def worst(estimates: tuple[Estimate, ...]) -> Estimate:
    """The lowest of several."""
    return min(estimates, key=lambda e: e.value)


@dataclass(frozen=True)
class Effects:
    """What a remedy changes; differences are with it minus without.

    Attributes
    ----------
    before, after : Estimate
        The harm without the remedy and with it.
    order, worst_order : Estimate
        Change of mean AUC, and of that of the group that is worse off; of balanced accuracy for a
        remedy that gives decisions.
    gains : (Estimate, Estimate)
        Change of what is counted in the first and in the second group: sensitivity for a gap in
        sensitivity, AUC for a shift. The first is the one that is served worse.
    brier : Estimate or None
    new_harm, new_order, new_worst : Estimate or None
        The same on the placebo: change of the harm, of mean AUC and of the worse group's.
    kind : "shift" or "gap"
    """

    before: Estimate
    after: Estimate
    order: Estimate
    worst_order: Estimate
    gains: tuple[Estimate, Estimate]
    kind: str
    brier: Estimate | None = None
    new_harm: Estimate | None = None
    new_order: Estimate | None = None
    new_worst: Estimate | None = None

    @property
    def share_left(self) -> Estimate:
        """Harm with the remedy as a share of the harm without: 1 nothing changed, 0 all gone."""
        return self.after / self.before


def verdict(effects: Effects, patient_id: ArrayLike) -> dict[str, str]:
    """The rule: what each of the four questions is answered with.

    Returns
    -------
    dict with "removes", "costs", "invents", "levels down"
        Words, several joined by " or " where the interval reaches over a bar; "" for none.
    """

    def limits(estimate):
        return interval(estimate, patient_id)

    low, high = limits(effects.before)
    if low <= 0 <= high:
        removed = "no harm to remove"
    else:
        removed = _allowed(effects.share_left.value, *limits(effects.share_left))
    return {
        "removes": removed,
        "costs": _beyond(
            {"AUC": effects.order, "the worse group's AUC": effects.worst_order}, LOSS, limits
        ),
        "invents": _invented(effects, limits),
        "levels down": _levelled(effects, limits),
    }


def _allowed(value, low, high):
    ends = [-np.inf, *SHARES, np.inf]
    words = dict(zip([*SHARES.values(), BEYOND], zip(ends, ends[1:]), strict=False))
    inside = {w: a < value <= b for w, (a, b) in words.items()}
    near = [w for w, (a, b) in words.items() if low <= b and high > a]
    return " or ".join(sorted(near, key=lambda w: not inside[w]))


def _beyond(losses: dict[str, Estimate], bar: float, limits: Callable) -> str:
    found = []
    for name, change in losses.items():
        low, high = limits(change)
        if high < -bar:
            found.append(name)
        elif low < -bar and change.value < -bar:
            found.append(f"perhaps {name}")
    return ", ".join(found)


def _invented(effects, limits):
    if effects.new_harm is None:
        return "no placebo"
    bar = NEW_SHIFT if effects.kind == "shift" else NEW_GAP
    low, high = limits(effects.new_harm)
    found = []
    if low > bar or high < -bar:
        found.append(f"a {effects.kind}")
    elif abs(effects.new_harm.value) > bar:
        found.append(f"perhaps a {effects.kind}")
    losses = {"a loss": effects.new_order, "a loss to the worse group": effects.new_worst}
    lost = _beyond(losses, LOSS, limits)
    return ", ".join([*found, *filter(None, [lost])])


def _levelled(effects, limits):
    worse, better = effects.gains
    if abs(effects.share_left.value) >= 2 / 3:
        return ""
    taken, given = limits(better), limits(worse)
    if taken[1] < -TAKEN and given[0] <= 0:
        return "levels down"
    return ""
