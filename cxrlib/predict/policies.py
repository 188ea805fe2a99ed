"""Rules that turn scores into alarms, fitted on other patients, side by side in one table.

What they do to patients: :mod:`cxrlib.stats.net_benefit`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.special import logit, ndtr

from cxrlib.predict.remedies.decisions import odds_rule
from cxrlib.stats import calibration, net_benefit

COMMON, EACH = "common threshold", "threshold per group"
RISK, OWN_RISK = "harm ratio", "harm ratio, per group"
ODDS, BEST_ODDS = "equalised odds", "equalised odds, best at the price"
POLICIES = (COMMON, EACH, RISK, OWN_RISK, ODDS)


def decided(
    applied: pd.DataFrame,
    fitted: pd.DataFrame,
    attribute: str,
    harm_ratio: float,
    specificity: float = 0.8,
) -> pd.DataFrame:
    """Alarms of every policy on the same films.

    - "common threshold": the score below which a share (specificity) of all healthy films lies;
    - "threshold per group": the same share of the healthy films of each group;
    - "harm ratio": a risk above 1 / (1 + harm ratio), by Platt scaling on all patients;
    - "harm ratio, per group": the same by Platt scaling within each group;
    - "equalised odds": thresholds and lots that make sensitivity and specificity equal (Hardt et
      al. 2016), see `cxrlib.predict.remedies.decisions.equalised_odds`.

    Parameters
    ----------
    applied, fitted : predictions tables with the attribute
        The films to decide on, and those of other patients to fit on; of one method, scores in
        [0, 1]. Films without a group are left out.
    attribute : str
    harm_ratio : number above 0
        As many false alarms are as bad as one missed case.
    specificity : float in (0, 1)

    Returns
    -------
    Predictions table; ``score`` is the probability of an alarm, ``method`` the policy. A model and
    label for which some group has no ill or no healthy film to fit on is left out.
    """
    at = net_benefit.threshold(harm_ratio)
    applied, fitted = (t.dropna(subset=[attribute]) for t in (applied, fitted))
    parts = [applied.iloc[:0]]
    for (model, label), films in applied.groupby(["model", "label"], sort=False, observed=True):
        known = fitted[(fitted["model"] == model) & (fitted["label"] == label)]
        seen = known.groupby(attribute, observed=True)["y_true"].nunique()
        if not seen.reindex(films[attribute].unique()).eq(2).all():
            continue
        known = known[known[attribute].isin(films[attribute])]
        score, group = (films[c].to_numpy() for c in ("score", attribute))
        healthy = known[known["y_true"] == 0]
        common = np.quantile(healthy["score"], specificity)
        own = healthy.groupby(attribute, observed=True)["score"].quantile(specificity)
        rule = odds_rule(*(known[c].to_numpy() for c in ("score", "y_true", attribute)))
        risk, own_risk = (
            calibration.recalibrate(films, known, by=by).set_index("image_id")["score"]
            for by in ([], [attribute])
        )
        yes = {
            COMMON: score > common,
            EACH: score > own.reindex(group).to_numpy(),
            RISK: (risk > at).reindex(films["image_id"]).to_numpy(),
            OWN_RISK: (own_risk > at).reindex(films["image_id"]).to_numpy(),
            ODDS: rule(score, group),
        }
        parts += [films.assign(method=m, score=np.asarray(y, float)) for m, y in yes.items()]
    return pd.concat(parts[min(1, len(parts) - 1) :], ignore_index=True)


# --- a planted case -----------------------------------------------------------------------------


def planted(
    groups: Mapping[str, tuple[float, float, float]],
    harm_ratio: float,
    seed: int = 1907,
    n: int = 40000,
) -> pd.DataFrame:
    """Made-up patients with normal scores and exact risks, decided on by risk and by equal odds.

    Parameters
    ----------
    groups : dict of name -> (share of the ill, distance of ill and healthy scores, share of all)
    harm_ratio : number above 0
    seed, n : of the patients who are judged; as many others are there to fit equalised odds on

    Returns
    -------
    Predictions table with the attribute ``kind`` and the methods "harm ratio, per group" and
    "equalised odds".
    """
    ill, apart, share = np.array(list(groups.values()), float).T
    rng = np.random.default_rng(seed)

    def sample(m):
        code = rng.choice(len(share), m, p=share)
        y = rng.random(m) < ill[code]
        score = rng.normal(size=m) + apart[code] * y
        log_odds = logit(ill[code]) + apart[code] * (score - apart[code] / 2)
        return y.astype(int), np.array(list(groups))[code], log_odds

    y, kind, log_odds = sample(n)
    rule = odds_rule(log_odds, y, kind)
    y, kind, log_odds = sample(n)
    films = pd.DataFrame({"image_id": np.arange(n), "patient_id": np.arange(n), "kind": kind})
    films = films.assign(cohort="planted", model="exact", label="ill", y_true=y)
    own = log_odds > logit(net_benefit.threshold(harm_ratio))
    yes = {OWN_RISK: own.astype(float), ODDS: rule(log_odds, kind)}
    return pd.concat([films.assign(method=m, score=s) for m, s in yes.items()], ignore_index=True)


def planted_truth(
    groups: Mapping[str, tuple[float, float, float]], harm_ratio: float
) -> dict[tuple[str, str], float]:
    """Net benefit per 1,000 of `planted` in an endless sample: (method, group) -> number.

    Curves of normal scores do not cross, so equal odds lie on that of the group whose ill are
    nearest to its healthy: at the largest balanced accuracy half way between the two, and, of the
    further method "equalised odds, best at the price", where the net benefit of all is largest.
    """
    at, nearest = net_benefit.threshold(harm_ratio), min(d for _, d, _ in groups.values())
    total = sum(share for *_, share in groups.values())
    ill_of_all = sum(ill * share for ill, _, share in groups.values()) / total
    out = {}
    for name, (ill, apart, _) in groups.items():
        for method, (prevalence, d) in {
            OWN_RISK: (ill, apart),
            ODDS: (at, nearest),  # as if half of those at the threshold were ill
            BEST_ODDS: (ill_of_all, nearest),
        }.items():
            cut = (logit(at) - logit(prevalence)) / d + d / 2
            hit, false = ndtr(d - cut), ndtr(-cut)
            out[method, name] = net_benefit.PER * (ill * hit - (1 - ill) * false / harm_ratio)
    return out
