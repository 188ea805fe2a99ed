"""The page of model cards: what each published model is, saw in pretraining, and wants."""

from __future__ import annotations

from cxrlib.models import registry

INTRODUCTION = """# Model cards

Ten published encoders are examined in the two papers, and an eleventh, the second CXR-CLIP,
belongs to the family. None comes with this book: the weights are their authors' to give. What comes
with the book are the same networks and the same preprocessing, built anew from well-kept libraries,
and the proof that they are the same. Every network is filled with numbers that are computed from
the names of its tensors, and must then return the embeddings that its authors' own code returned
for the same inputs, to within $10^{-5}$ in every component; likewise the pixels after
preprocessing. Run the proof on your machine; it needs no weights:

```bash
cxrbook models                       # what each model wants, and what is there
cxrbook models verify medclip_vit    # network, preprocessing and, if they are there, your weights
```

[Run it again, your way](rerun.md) says where the files go. A chapter takes a model by its name,
`-p models=medclip_vit`.
"""

LEAKS = """## Who has seen what

A model that was pretrained on films of a data set has an advantage on every other film of it, and
may have seen the very patients of the test set. The register below is what the papers of the models
state; *?* marks models that also saw data from the web, or data that were not published, where
nobody can tell. The zero-shot chapter sets the register beside its cohort.
"""

PROTOCOLS = """## As the authors use it, as paper S used it

`protocol=corrected` uses each model as its authors do, with one exception: similarities are
multiplied by the logit scale wherever a checkpoint has learned one, also for models whose authors
leave it out when they evaluate. Ranks, and so AUC, do not depend on it. `as_published` does what
the public code of paper S does.
"""

SOURCES = ("MIMIC-CXR", "CheXpert", "NIH-CXR14", "PadChest", "PMC-15M")


def page() -> str:
    """All cards as one MyST page of the book."""
    cards = registry.cards().values()
    lines = [INTRODUCTION]
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
    lines += [LEAKS]
    lines += _table(
        ("Model", *SOURCES, *others),
        [(card["title"], *(_seen(card, s) for s in (*SOURCES, *others))) for card in cards],
    )
    lines += [PROTOCOLS]
    lines += _table(
        ("Model", "What paper S does otherwise"),
        [(card["title"], card["as_published"]) for card in cards],
    )
    for card in cards:
        lines += _section(card)
    return "\n".join(lines) + "\n"


def _seen(card, source):
    if source in card["sources"]:
        return "yes"
    return "–" if card.get("sources_complete", True) else "?"


def _section(card):
    positive, negative = (_quoted(card["prompts"][side]) for side in ("positive", "negative"))
    fields = {
        "Name": f"`{card['name']}`",
        "Paper": card["paper"],
        "Architecture": card["architecture"],
        "Pretrained on": card["trained_on"],
        "Tokenizer": f"{card['tokenizer']}, at most {card['max_length']} tokens",
        "Prompts of its authors": positive + (f" against {negative}" if negative else ""),
        "Code": card["repository"],
        "Licence": card["licence"],
    }
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
