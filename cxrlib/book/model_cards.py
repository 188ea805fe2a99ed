"""The page of model cards: what each model is; of published ones, what they saw and want."""

from __future__ import annotations

import tomllib
from pathlib import Path

from cxrlib.models import model_cards, registry

TEXTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
SOURCES = ("MIMIC-CXR", "CheXpert", "NIH-CXR14", "PadChest", "PMC-15M")


def page() -> str:
    """All cards as one MyST page of the book."""
    cards = registry.cards().values()
    lines = [TEXTS["introduction"]]
    lines += _table(
        ("Model", "Studied in", "Image", "Parameters", "Embedding"),
        [
            (
                f"[{card['title']}](#{_anchor(card)})",
                ", ".join(card["studied_in"]) or "–",
                f"{card['image_size']} px",
                f"{card['parameters'] / 1e6:.0f} M",
                card["embed_dim"],
            )
            for card in cards
        ],
    )
    others = sorted({s for card in cards for s in card["sources"]} - set(SOURCES))
    lines += [TEXTS["leaks"]]
    lines += _table(
        ("Model", *SOURCES, *others),
        [(card["title"], *(_seen(card, s) for s in (*SOURCES, *others))) for card in cards],
    )
    lines += [TEXTS["protocols"]]
    lines += _table(
        ("Model", "What paper S does otherwise"),
        [(card["title"], card["as_published"]) for card in cards],
    )
    for card in cards:
        lines += _section(card)
    small = model_cards()
    lines += [TEXTS["small"]]
    lines += _small("Model", [card for card in small if "remedy_of" not in card])
    lines += [TEXTS["remedied"]]
    lines += _small("Remedied model", [card for card in small if "remedy_of" in card])
    return "\n".join(lines) + "\n"


def _small(head, cards):
    rows = [
        (
            f"`{card['name']}`",
            card["architecture"],
            f"{card['parameters'] / 1e6:.1f} M",
            card["trained_on"],
            "{} [{}, {}]".format(*card["zero_shot_auc"]["mean"]),
        )
        for card in cards
    ]
    return _table((head, "Architecture", "Parameters", "Trained on", "Mean AUC"), rows)


def _seen(card, source):
    if source in card["sources"]:
        return "yes"
    return "–" if card.get("sources_complete", True) else "?"


def _section(card):
    positive, negative = (_quoted(card["prompts"][side]) for side in ("positive", "negative"))
    prompts = positive + (f" against {negative}" if negative else "")
    fields = {k: v.format(**card | {"prompts": prompts}) for k, v in TEXTS["fields"].items()}
    for file in card["files"]:
        names = " or ".join(f"`{name}`" for name in file["names"])
        fields[f"File, {file['part']}"] = f"{names}, from {file['source']}"
    lines = [f"({_anchor(card)})=", f"## {card['title']}", ""]
    return [*lines, *(f"- **{field}**: {text}" for field, text in fields.items()), ""]


def _quoted(prompts):
    return "; ".join(f"“{prompt}”" for prompt in prompts)


def _table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows
    ]
    return [*lines, ""]


def _anchor(card):
    return "model-" + card["name"].replace("_", "-")
