"""FairCLIP: the distance against exact transport, its two terms, its training."""

import numpy as np
import pandas as pd
import pytest
import torch
from open_clip import ClipLoss
from scipy.optimize import linear_sum_assignment

from cxrlib.core.errors import Lacks
from cxrlib.predict import fairclip
from cxrlib.predict.remedies.remedy import Films, Question


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def trial():
    """A question, films and reports in which group F fits its reports less well."""
    rng = np.random.default_rng(0)
    n, d = 150, 6
    reports = unit(rng.normal(size=(n, d)))
    group = np.where(rng.random(n) < 0.5, "F", "M")
    noise = np.where(group == "F", 2.0, 0.5)[:, None]
    images = unit(reports + noise * rng.normal(size=(n, d)) / d**0.5)
    prompts = unit(rng.normal(size=(2, d)))
    question = Question(
        ("Edema",), prompts[:1], prompts[1:], 5.0, "sex", ("F", "M"), ((), ()), lambda texts: None
    )
    films = Films(images, rng.random((n, 1)) < 0.3, group, np.arange(n))
    return question, films, pd.DataFrame(reports, index=films.patient)


@pytest.mark.parametrize("m", [8, 24])
def test_sinkhorn_tends_to_the_exact_distance(m):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=24), 1.5 * rng.normal(size=m) + 0.5
    repeated = np.repeat(y, 24 // m)  # an assignment of as many to as many
    cost = (x[:, None] - repeated) ** 2 / 2
    exact = cost[linear_sum_assignment(cost)].mean()
    errors = []
    for blur in (0.1, 0.02, 0.004):
        near = fairclip.sinkhorn(torch.tensor(x), torch.tensor(y), blur, int(4 / blur))
        errors.append(abs(near.item() / exact - 1))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02


def test_sinkhorn_of_a_shift_and_its_gradient():
    """A pile that is shifted costs half the square, and is pulled back as a whole."""
    y = torch.linspace(-1, 1, 16, dtype=torch.float64)
    x = (y + 10).requires_grad_()
    distance = fairclip.sinkhorn(x, y, 0.0005, 300)
    distance.backward()
    assert distance.item() == pytest.approx(50, rel=1e-3)
    assert x.grad.numpy() == pytest.approx(10 / 16, rel=0.02)
    two = fairclip.sinkhorn(torch.stack([x, y]), torch.stack([y, x]), 0.0005, 300)
    assert two.detach().numpy() == pytest.approx(50, rel=1e-3)  # several at a time


def test_terms_differ_where_it_is_said(trial):
    _, films, reports = trial
    x, t = (torch.tensor(v[:20]) for v in (films.images, reports.to_numpy()))
    logits = 5 * x.numpy() @ t.numpy().T
    assert fairclip.to_own_report(x, t).numpy() == pytest.approx(np.diag(logits) / 5)
    code = fairclip.diagonal_of_square(x, t, 5.0)
    assert code.numpy() == pytest.approx(np.diag(logits @ logits))
    # as published: a group that is more similar by any factor gives the same term, and is not moved
    group = (1.0 * x.flip(0)).requires_grad_(), t.flip(0)
    batch = x.clone().requires_grad_(), t
    one = fairclip.as_published(batch, group, 5.0)
    tripled = fairclip.as_published(batch, (3 * group[0], group[1]), 5.0)
    assert one.item() == pytest.approx(tripled.item())
    one.backward()
    assert group[0].grad is None
    assert batch[0].grad.abs().max() > 0
    # corrected: no sum, no scale, and both sides move
    of = fairclip.corrected(batch, group, 5.0)
    assert of.item() == fairclip.corrected(batch, group, 50.0).item()
    assert of.item() != fairclip.corrected(batch, (3 * group[0], group[1]), 5.0).item()
    of.backward()
    assert group[0].grad.abs().max() > 0


def test_the_code_does_not_know_the_groups(trial):
    assert fairclip.agreement(*trial, "as_published", 3).min() > 0.999
    assert fairclip.agreement(*trial, "corrected", 3).min() < 0.9


def test_without_weight_it_is_the_contrastive_loss(trial):
    """Against open_clip's loss in a loop of its own; the form does not matter then."""
    question, films, reports = trial
    x, t = (torch.tensor(v, dtype=torch.float32) for v in (films.images, reports.to_numpy()))
    layers = [torch.eye(6).requires_grad_() for _ in "xt"]
    optimizer = torch.optim.Adam(layers, fairclip.RATE)
    order, loss_of = torch.Generator().manual_seed(2 * 3), ClipLoss()
    for _ in range(2):
        for part in torch.randperm(len(x), generator=order).split(50):
            z = [v[part] @ w for v, w in zip((x, t), layers, strict=True)]
            z = [v / v.norm(dim=1, keepdim=True) for v in z]
            optimizer.zero_grad()
            loss_of(*z, torch.tensor(question.scale)).backward()
            optimizer.step()
    for form in fairclip.TERMS:
        found = fairclip.train(*trial, form, 0.0, seed=3, epochs=2, batch=50)
        assert found == pytest.approx(np.stack([w.detach().numpy() for w in layers]), abs=1e-5)


def test_the_equation_makes_groups_alike_in_similarity(trial, monkeypatch):
    monkeypatch.setattr(fairclip, "RATE", 0.02)  # few steps
    _, films, reports = trial

    def apart(weight):
        how = {"form": "corrected", "epochs": 40, "batch": 50}
        layers = fairclip.train(*trial, weight=weight, **how)
        own = fairclip.similarity(layers, films.images, reports.to_numpy())
        return own[films.group == "M"].mean() - own[films.group == "F"].mean()

    assert abs(apart(1000.0)) < 0.5 * apart(0.0)


def test_one_seed_one_result(trial):
    one, again, other = (
        fairclip.fit(*trial, form="corrected", weight=1.0, seed=seed)(trial[1])
        for seed in (1, 1, 2)
    )
    assert (one == again).all()
    assert (one != other).any()
    question, films, _ = trial
    assert one.shape == films.truth.shape
    identity = np.stack([np.eye(6)] * 2)
    margins = question.scale * films.images @ (question.positive - question.negative).T
    assert fairclip.answering(question, identity)(films) == pytest.approx(margins)


def test_what_it_refuses(trial):
    question, films, reports = trial
    with pytest.raises(Lacks, match="no film it is fitted on is of 'F'"):
        men = films.group == "M"
        fairclip.train(question, films.rows(men), reports)
    with pytest.raises(ValueError, match="149 reports of 150 films"):
        fairclip.train(question, films, reports.iloc[1:])
    with pytest.raises(ValueError, match="corrected"):
        fairclip.train(question, films, reports, "paper")


def test_what_others_published():
    claims, runs = fairclip.claims(), fairclip.runs()
    assert claims.notna().all().all()
    assert (runs.groupby(["by", "architecture", "attribute", "model"]).size() == 3).all()
    found = fairclip.reproduced().loc[("Saleh", "ViT-L/14", "sex"), "parity"]
    one, other = np.array([0.0525, 0.0651, 0.1045]), np.array([0.0491, 0.0203, 0.0101])
    assert found["difference"] == pytest.approx(one.mean() - other.mean())
    error = np.sqrt(one.var(ddof=1) / 3 + other.var(ddof=1) / 3)
    assert (found["high"] - found["low"]) / error > 2 * 2.77  # t with at most 4 degrees of freedom
    assert len(fairclip.side_by_side()) == 6


def test_parity_by_chance_is_what_fair_classifiers_show():
    rng = np.random.default_rng(0)
    women, men = (rng.binomial(n, 0.5, 20000) / n for n in (1096, 904))
    assert fairclip.parity_by_chance()["sex"] == pytest.approx(abs(women - men).mean(), rel=0.03)
