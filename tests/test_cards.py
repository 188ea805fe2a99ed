"""Every metric that a results table can hold has a complete card, and the page shows it."""

import re

import pytest

from cxrlib.book import metric_cards
from cxrlib.stats import calibration, estimates, metrics, net_benefit

MULTICLASS = ["accuracy", "f1", "macro_f1", "var_f1", "f1_gap_signed", "f1_gap_absolute"]
MULTICLASS += ["eq_odds_mean", "eq_odds_max", "calibration_gap_eq4", "ece_gap"]
TABLES = [
    *estimates.RANKING_METRICS,
    *estimates.PROBABILITY_METRICS,
    *estimates.DECISION_METRICS,
    *MULTICLASS,
    *net_benefit.METRICS,
    "twin_shift",
]


def test_every_metric_of_the_tables_has_a_card():
    assert set(TABLES) <= {c.name for c in metric_cards.cards()}


def test_cards_name_the_function_that_computes_the_metric():
    found = {c.name: c.function for c in metric_cards.cards()}
    for name, function in (estimates.PROBABILITY_METRICS | estimates.DECISION_METRICS).items():
        assert found[name] == f"{function.__module__}.{function.__name__}"
    assert len(set(found.values())) == len(found)


def test_every_function_with_fields_is_on_the_page():
    """A new metric cannot be forgotten in the sections."""
    carded = {
        f"{module.__name__}.{name}"
        for module in (metrics, calibration, net_benefit)
        for name, function in vars(module).items()
        if getattr(function, "__module__", "") == module.__name__
        and ":Formula:" in (function.__doc__ or "")
    }
    assert carded == {c.function for c in metric_cards.cards()}


def full(**changed):
    """A function whose docstring has every field, apart from what is changed."""
    fields = {field: f"text of {field}" for field in metric_cards.FIELDS}
    fields |= {"Direction": "lower is better"} | changed

    def made():
        pass

    lines = ["Made up, for a test.", ""]
    lines += [f":{field}: {text}" for field, text in fields.items() if text is not None]
    made.__doc__ = "\n".join(lines)
    return made


def test_a_card_is_read_from_the_docstring():
    found = metric_cards.card("made", full(Range="[0,\n    1]"))
    assert found.summary == "Made up, for a test."
    assert found.range == "[0, 1]" and found.look_alikes == "text of Look-alikes"
    assert found.zero_means == "text of Zero means" and found.direction == "lower is better"


@pytest.mark.parametrize("field", metric_cards.FIELDS)
@pytest.mark.parametrize("text", [None, ""])
def test_a_missing_field_is_named(field, text):
    with pytest.raises(ValueError, match=f"card of 'made': no field '{field}' in .*made"):
        metric_cards.card("made", full(**{field: text}))


def test_a_wrong_field_or_direction_is_named():
    with pytest.raises(ValueError, match="card of 'made': unknown field 'Rnage'"):
        metric_cards.card("made", full(Rnage="[0, 1]"))
    with pytest.raises(ValueError, match="'Direction' is 'up'; expected higher is better"):
        metric_cards.card("made", full(Direction="up"))


def test_the_page_has_a_section_for_every_card():
    page = metric_cards.page()
    anchors = re.findall(r"^\((metric-[a-z0-9-]+)\)=$", page, flags=re.MULTILINE)
    assert len(anchors) == len(set(anchors)) == len(metric_cards.cards())
    assert re.findall(r"\]\(#(metric-[a-z0-9-]+)\)", page) == anchors  # the table at the top
    headings = re.findall(r"^### (.+)$", page, flags=re.MULTILINE)
    assert len(set(headings)) == len(anchors)
    for field in metric_cards.FIELDS[1:]:
        assert page.count(f"\n{field}\n: ") == len(anchors)
    assert page.count("\n$$\n") == 2 * len(anchors)


def test_every_source_is_listed_and_every_listed_one_is_cited():
    above, listed = metric_cards.page().split("## Sources")
    cited = set(re.findall(r"([A-Z][\w-]+)(?: and [A-Z]\w+| et al\.)? ((?:19|20)\d\d)\b", above))
    keys = re.findall(r"\{cite:t\}`([a-z]+)(\d{4})`", listed)
    entries = re.findall(r"^- (?:Van )?(\w+)[^:\d]* (\d{4}): ", listed, flags=re.MULTILINE)
    assert {(name.lower().replace("-", ""), year) for name, year in cited} == {
        (name.lower(), year) for name, year in [*keys, *entries]
    }


@pytest.mark.parametrize("card", metric_cards.cards(), ids=lambda c: c.name)
def test_the_texts_are_sound_markdown(card):
    formula = card.formula
    assert formula.startswith("$") and formula.count("{") == formula.count("}")
    for text in (card.range, card.direction, card.summary):
        assert "|" not in text  # they stand in a table
    for field in ("formula", "source", "zero_means", "undefined_when", "look_alikes"):
        text = getattr(card, field)
        assert text.count("$") % 2 == 0 and text.count("`") % 2 == 0
        if field != "formula":
            assert text.endswith((".", ".)")), f"{field}: {text}"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        # what the cards say about 0 and the range, tried on the functions themselves
        ("auc", (metrics.auc([0, 1], [1, 0]), 0)),
        ("auc", (metrics.auc([0, 1], [1, 1]), 0.5)),
        ("average_precision", (metrics.average_precision([0, 0, 0, 1], [1, 1, 1, 1]), 0.25)),
        ("brier", (metrics.brier([0, 1], [0, 1]), 0)),
        ("brier", (metrics.brier([0, 0, 0, 1], [0.25] * 4), 0.25 * 0.75)),
        ("ece_equal_width", (calibration.ece_equal_width([0, 0, 0, 1], [0.25] * 4), 0)),
        ("var_f1", (metrics.var_f1([0, 0, 1, 1]), 0.25)),
        ("var_f1", (metrics.var_f1([0, 0]), 0)),
        ("calibration_gap_eq4", (metrics.calibration_gap_eq4([0.5] * 2, [0, 1], [1], [1]), 0.5)),
    ],
)
def test_what_the_cards_say_about_particular_values(name, values):
    assert name in {c.name for c in metric_cards.cards()}
    found, expected = values
    assert found == pytest.approx(expected)
