"""The page of model cards holds what the cards say."""

import re

from cxrlib import models
from cxrlib.book import model_cards
from cxrlib.models import registry


def test_every_model_has_a_section_a_row_in_each_table_and_its_files():
    text = model_cards.page()
    for card in registry.cards().values():
        assert text.count(f"(model-{card['name'].replace('_', '-')})=") == 1
        assert text.count(f"\n| [{card['title']}](") == 1
        assert text.count(f"\n| {card['title']} |") == 2
        for file in card["files"]:
            assert file["source"] in text
        for prompt in card["prompts"]["positive"]:
            assert prompt in text


def test_the_register_marks_the_data_sets_of_a_card():
    lines = model_cards.page().splitlines()
    head = next(line for line in lines if line.startswith("| Model | MIMIC-CXR"))
    columns = [cell.strip() for cell in head.strip("|").split("|")][1:]
    for card in registry.cards().values():
        row = next(x for x in lines[lines.index(head) :] if x.startswith(f"| {card['title']} |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")][1:]
        assert [c for c, cell in zip(columns, cells, strict=True) if cell == "yes"] == [
            c for c in columns if c in card["sources"]
        ]


def test_no_cell_breaks_its_table():
    lines = [line for line in model_cards.page().splitlines() if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
    assert set(widths) == {6, 7, 3}


def test_small_clips_and_those_with_a_remedy_are_in_tables_of_their_own():
    lines = model_cards.page().splitlines()
    remedied = next(i for i, line in enumerate(lines) if line.startswith("| Remedied model |"))
    for card in models.model_cards():
        (at,) = (i for i, line in enumerate(lines) if line.startswith(f"| `{card['name']}` |"))
        assert (at > remedied) == ("remedy_of" in card)
        assert card["trained_on"] in lines[at]
