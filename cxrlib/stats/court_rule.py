"""What a remedy does to a bias, and the one rule that puts it into words.

Four questions. Does it *remove* the harm? What does it *cost*? What does it *invent*, on a model or
on films in which nothing was planted? Does it *level down*, closing a gap by taking from those who
were served better? The answers are :class:`cxrlib.stats.influence.Estimate`, paired on the same
films before and after.

The rule goes by 95 % intervals. A share of the harm that is left gets every word whose range its
interval reaches, that of its value first: "removes" is sure, "removes or reduces" is near the bar.
Whatever else is said is said when the whole interval lies beyond the bar; where the interval holds
the bar it is "perhaps". Two verdicts contradict each other only in what both are sure of.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cxrlib.stats.influence import Estimate, auc, average, interval, mean, spread

SHARES = {"over-shoots": -0.25, "removes": 0.25, "reduces": 0.75, "leaves": 1.25}
"""Upper ends of the share of the harm that is left; above the last a remedy worsens."""
WORSENS = "worsens"
NO_HARM = "no harm to remove"
WORSE = " in the worse group"
LOSS = 0.02  # of AUC or balanced accuracy, over all or in the worse group: less is no cost
LOSS_BRIER = 0.005
NEW = {"shift": 0.25, "gap": 0.05}  # SD, sensitivity: a change on the placebo within it is none
TAKEN = 0.02  # of sensitivity or AUC: what the better group has lost, or nobody levels down
GIVEN = 1 / 3  # of what the better group lost: a worse group that gained more was helped


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
        Change in the group that is served worse, and in the other: of sensitivity for a gap in
        sensitivity, of AUC for a shift, by which those without a drain are served worse.
    brier : Estimate or None
    on_placebo : Estimate or None
        What is there without the bias, and without a remedy: no harm of the bias.
    new_harm, new_order, new_worst : Estimate or None
        Changes on the placebo: of the harm, of mean AUC and of the worse group's.
    kind : "shift" or "gap"
    decides : bool
        The remedy gives decisions: orders are balanced accuracies, and there is no Brier score.
    """

    before: Estimate
    after: Estimate
    order: Estimate
    worst_order: Estimate
    gains: tuple[Estimate, Estimate]
    kind: str
    decides: bool = False
    brier: Estimate | None = None
    on_placebo: Estimate | None = None
    new_harm: Estimate | None = None
    new_order: Estimate | None = None
    new_worst: Estimate | None = None

    @property
    def share_left(self) -> Estimate:
        """Harm with the remedy as a share of the harm without: 1 nothing changed, 0 all gone."""
        return self.after / self.before


class Verdict(NamedTuple):
    """The four answers, in words.

    Attributes
    ----------
    removes : str
        One of the words of :data:`SHARES`, :data:`WORSENS` or :data:`NO_HARM`; or several.
    costs, invents : str
        What is lost, and what is new on the placebo, listed, after "perhaps" where none of it is
        sure; "" for nothing. A loss in the worse group is listed where there is none in all.
    levels_down : str
        "levels down", "perhaps levels down" or "".
    """

    removes: str
    costs: str
    invents: str
    levels_down: str

    def __str__(self) -> str:
        costs, invents = _said("costs", self.costs), self.invents
        if invents != NO_PLACEBO:
            invents = _said("invents", invents)
        return "; ".join(filter(None, [self.removes, costs, invents, self.levels_down]))


def _said(verb, what):
    maybe = "perhaps " if what.startswith("perhaps ") else ""
    return what and f"{maybe}{verb} {what.removeprefix(maybe)}"


NO_PLACEBO = "no placebo"


def verdict(effects: Effects, patient_id: ArrayLike) -> Verdict:
    """The rule, see the top of this module; ``patient_id`` (n,) of the images of the effects."""

    def below(change: Estimate | None, bar: float) -> str:
        """Whether a change lies below -bar: "yes", "perhaps", "no"."""
        if change is None:
            return "no"
        low, high = interval(change, patient_id)
        return "yes" if high < -bar else "perhaps" if low < -bar else "no"

    def beyond(bars: dict[str, tuple[Estimate | None, float]]) -> str:
        found = {what: below(*of) for what, of in bars.items()}
        for level, first in (("yes", ""), ("perhaps", "perhaps ")):
            said = [what for what in found if found[what] == level]
            if said:
                again = {what + WORSE for what in said}  # a loss in all is one in the worse group
                return first + ", ".join(what for what in said if what not in again)
        return ""

    def negative(change):
        return None if change is None else change * -1

    order = "accuracy" if effects.decides else "AUC"
    costs = beyond(
        {
            order: (effects.order, LOSS),
            order + WORSE: (effects.worst_order, LOSS),
            "Brier score": (negative(effects.brier), LOSS_BRIER),
        }
    )
    new = effects.new_harm
    invents = (
        NO_PLACEBO
        if new is None
        else beyond(
            {
                f"a {effects.kind}": (new and new * -np.sign(new.value), NEW[effects.kind]),
                f"a loss of {order}": (effects.new_order, LOSS),
                f"a loss of {order}{WORSE}": (effects.new_worst, LOSS),
            }
        )
    )
    low, high = interval(effects.before, patient_id)
    if low <= 0 <= high:
        return Verdict(NO_HARM, costs, invents, "")
    share = effects.share_left
    low, high = interval(share, patient_id)
    removes = _words(share.value, low, high)
    worse, better = effects.gains
    bar = SHARES["reduces"]  # above it the gap has not closed, and nobody was levelled down
    inside, outside = -bar <= low and high <= bar, low > bar or high < -bar
    closed = "yes" if inside else "no" if outside else "perhaps"
    says = {closed, below(better, TAKEN), below(worse + better * GIVEN, 0)}
    down = "" if "no" in says else "levels down" if says == {"yes"} else "perhaps levels down"
    if effects.kind == "shift":
        down = ""
    return Verdict(removes, costs, invents, down)


def contradicts(one: Verdict, other: Verdict) -> tuple[str, ...]:
    """Questions that two verdicts answer differently, each of them surely.

    Returns
    -------
    tuple of str
        Of "removes", "costs", "invents", "levels_down".
    """
    apart = []
    if not set(one.removes.split(" or ")) & set(other.removes.split(" or ")):
        apart.append("removes")
    for question in ("costs", "invents", "levels_down"):
        sure = {_sure(getattr(one, question)), _sure(getattr(other, question))}
        if sure == {"yes", "no"}:
            apart.append(question)
    return tuple(apart)


def _sure(words):
    if words in ("", NO_PLACEBO):
        return "no"
    return "perhaps" if words.startswith("perhaps") else "yes"


def _words(value, low, high):
    """Words for a share of harm that is left: that of its value, then others of its interval."""
    ends = pairwise([-np.inf, *SHARES.values(), np.inf])
    ranges = dict(zip([*SHARES, WORSENS], ends, strict=True))
    reached = [word for word, (above, to) in ranges.items() if low <= to and high > above]
    return " or ".join(sorted(reached, key=lambda w: not ranges[w][0] < value <= ranges[w][1]))
