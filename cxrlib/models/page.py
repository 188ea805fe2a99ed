"""The page of model cards: what each published model is, saw in pretraining, and wants."""

from __future__ import annotations

from cxrlib.models import registry

INTRODUCTION = """# Model cards

The papers examine eleven published encoders. None of them comes with
this book: their weights are their authors' to give, and some need an agreement. What comes with the
book is their code, and the proof that it is theirs: every network is filled with numbers that are
computed from the names of its tensors, and must then return the embeddings that its authors' own
code returned for the same inputs, to within $10^{-5}$ in every component. The same holds for the
pixels after preprocessing. Run the proof on your machine, without any weights:

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

`protocol=corrected` uses each model as its authors do. `as_published` does what the public code of
paper S does.
"""

SOURCES = ("MIMIC-CXR", "CheXpert", "NIH-CXR14", "PadChest", "PMC-15M")


def page() -> str:
    """All cards as one MyST page of the book."""
    cards = registry.cards().values()
    lines = [INTRODUCTION]
    lines += _table(
        ("Model", "Paper", "In", "Image", "Parameters", "Embedding", "Licence"),
        [
            (
                f"[{card['title']}](#{_anchor(card)})",
                card["paper"],
                " and ".join(card["studied_in"]),
                f"{card['image_size']} px",
                f"{card['parameters'] / 1e6:.0f} M",
                card["embed_dim"],
                card["licence"],
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
    prompts = card["prompts"]
    fields = {
        "Name": f"`{card['name']}`",
        "Architecture": card["architecture"],
        "Pretrained on": card["trained_on"],
        "Tokenizer": f"{card['tokenizer']}, at most {card['max_length']} tokens",
        "Prompts of its authors": _quoted(prompts["positive"]),
        "against": _quoted(prompts["negative"]),
        "Code": card["repository"],
    }
    for file in card["files"]:
        names = " or ".join(f"`{name}`" for name in file["names"])
        fields[f"File: {file['part']}"] = f"{names}, from {file['source']}"
    lines = [f"({_anchor(card)})=", f"## {card['title']}", ""]
    for field, text in fields.items():
        lines += [field, f": {text}", ""]
    return lines


def _quoted(prompts):
    return "; ".join(f"“{prompt}”" for prompt in prompts) or "none"


def _table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows
    ]
    return [*lines, ""]


def _anchor(card):
    return "model-" + card["name"].replace("_", "-")
