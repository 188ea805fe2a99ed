"""Films that a reader changes in the built book, without a server: another drain, scanner, sex.

The call leaves one HTML output: films as sheets, a table of scores as JSON, native controls that
``book/assets/film_explorer.js`` fills. In a live notebook, or without JavaScript, it shows what
single changes do to the first patient; a script prints that table. Nothing here computes a score.
"""

import base64
import html
import io
import json

import numpy as np
import pandas as pd
from PIL import Image

from cxrlib import guard
from cxrlib.core.checks import one_row_each
from cxrlib.show.notebook import displayed, rendered, withheld
from cxrlib.show.words import readable

CONTROLS = {
    "patient": "Patient",
    "drain": "Chest drain",
    "contrast": "Findings",
    "site": "Scanner",
    "sex": "Sex drawn",
    "age": "Age drawn",
}
CHANGED = list(CONTROLS)[1:]
LIMIT = 1_500_000  # bytes of the whole output
QUALITY = 50  # of WebP, at which a film of 112 pixels takes about 1 kB
WIDE = 8  # films in a row of a sheet
ELSEWHERE = (
    "In the built book, in a browser with JavaScript, patient and changes can be chosen here. "
    "This is what each change alone does to the first patient, films in the order of the rows."
)


def film_explorer(
    films: np.ndarray, states: pd.DataFrame, predictions: pd.DataFrame, caption: str
) -> None:
    """Choose a patient and what is changed: film, report and scores beside those as recorded.

    Parameters
    ----------
    films, states, predictions
        From :func:`cxrlib.predict.film_grid.film_grid`: films (n, size, size), one row per film
        in the order of the films, and one score in [0, 1] per film, model and label.
    caption : str
        Plain text.

    Raises
    ------
    ValueError
        Tables that do not fit the films, or an output of more than 1.5 MB.
    """
    if guard.active():
        withheld("films, not even those of phantoms")
        return
    one_row_each(states, list(CONTROLS))
    places = ["label", "model"]
    scores = predictions.pivot(index="image_id", columns=places, values="score")
    asked = pd.MultiIndex.from_frame(predictions[places].drop_duplicates())  # in their order
    scores = scores.reindex(index=states["image_id"], columns=asked)
    recorded = states.groupby("patient", sort=False)["recorded"].sum()
    if len(films) != len(states) or scores.isna().any(axis=None) or (recorded != 1).any():
        raise ValueError(
            f"film explorer: {len(films)} films and {len(states)} states; expected one state per "
            "film, a score of each by each model, and one film as recorded per patient"
        )
    moved, changes = _changes(states)
    shown = states.assign(
        contrast=states["contrast"].map("× {:g}".format),
        sex=states["sex"].map(readable),
        change=changes,
    )[[*CONTROLS, "report", "change"]]

    one = states["patient"].iloc[0]
    single = [i for i in np.flatnonzero(states["patient"] == one) if moved[i].sum() < 2]
    single.sort(key=lambda i: moved[i].any() * (1 + moved[i].argmax()))  # as recorded comes first
    first = scores.columns[0][0]
    few = scores[first].iloc[single].set_axis([changes[i] for i in single])
    few = few.rename_axis(index="film", columns=None)
    told = f"{one}: scores for {first.lower()}"
    table, plain = rendered(few, told)
    alt = f"Films of patient {one}: {'; '.join(few.index)}."

    data = {
        "size": films.shape[1],
        "recorded": np.flatnonzero(states["recorded"]).tolist(),
        "columns": {name: _coded(shown[name]) for name in shown},
        "scores": {
            label: (1000 * scores[label]).round().astype(int).to_dict("list")  # in thousandths
            for label in scores.columns.unique("label")
        },
        "sheets": [_sheet(films[states["patient"] == p]) for p in recorded.index],
    }
    controls = {**CONTROLS, "label": "Scores for"}
    page = PAGE.format(
        caption=html.escape(caption),
        controls="\n".join(_control(*each) for each in controls.items()),
        size=films.shape[1],
        elsewhere=ELSEWHERE,
        strip=_sheet(films[single]),
        alt=html.escape(alt, quote=True),
        table=table,
        data=json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    )
    if len(page.encode()) > LIMIT:
        raise ValueError(
            f"film explorer: {len(page.encode()) / 1e6:.2f} MB for {len(films)} films of "
            f"{films.shape[1]} pixels a side; expected {LIMIT / 1e6} MB or less: take fewer "
            "patients or smaller films"
        )
    displayed(page, f"{caption}\n{told}\n{plain}")


PAGE = """<div class="cxr-films" role="group" aria-label="Film explorer">
<p class="cxr-caption">{caption}</p>
<form hidden>
{controls}
<p role="status" aria-live="polite"></p></form>
<div class="cxr-films-shown" hidden>
<div><canvas width="{size}" height="{size}" role="img"></canvas><p>as recorded</p></div>
<div><canvas width="{size}" height="{size}" role="img"></canvas><p></p></div>
<div><p class="cxr-report"></p>
<table class="cxr-table"><thead><tr><th scope="col">model</th>
<th scope="col" class="number">before</th><th scope="col" class="number">now</th>
<th scope="col" class="number">change</th></tr></thead><tbody></tbody></table></div>
</div>
<div class="cxr-elsewhere"><p>{elsewhere}</p>
<img src="{strip}" alt="{alt}" style="max-width: 100%">
{table}</div>
<script type="application/json">{data}</script></div>"""


def _changes(states):
    """What differs from the film as recorded, (n, changes) bool, and each row of it in words."""
    now = states[CHANGED].to_numpy()
    was = states[states["recorded"]].set_index("patient")[CHANGED].loc[states["patient"]]
    moved = now != was.to_numpy()
    words = [
        ", ".join(_said(CHANGED[k], row[k]) for k in np.flatnonzero(differs)) or "as recorded"
        for row, differs in zip(now, moved, strict=True)
    ]
    return moved, words


def _said(column, value):
    """A change in words."""
    if column == "drain":
        return "drain added" if value else "drain removed"
    return {
        "contrast": f"findings fainter (× {value})",
        "site": f"scanner {value}",
        "sex": f"{readable(value)} anatomy",
        "age": f"anatomy of age {value}",
    }[column]


def _control(name, title):
    if name == "drain":
        return f'<label><input type="checkbox" name="{name}"> {title}</label>'
    return f'<label>{title} <select name="{name}"></select></label>'


def _coded(column):
    """A column as its distinct entries and their place in each row."""
    codes, entries = pd.factorize(column)
    return {"entries": entries.tolist(), "codes": codes.tolist()}


def _sheet(films):
    """Films (n, size, size) as one picture, row by row, for a page."""
    blank = np.zeros((-len(films) % WIDE, *films.shape[1:]), np.uint8)
    rows = np.concatenate([films, blank]).reshape(-1, WIDE, *films.shape[1:])
    picture = Image.fromarray(np.vstack([np.hstack(row) for row in rows]))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
