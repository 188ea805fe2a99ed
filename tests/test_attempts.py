"""Attempts to leak by a careless author, each with its outcome; and what must pass all the same.

One chapter on a made-up MIMIC-CXR makes all attempts, one per cell. "refused": the guard stops the
cell, or the last look finds it; "masked": small counts are hidden; "seen": it passes, and the page
on data says so (under the words given).
"""

import json
import re

import mimic_tree
import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

from cxrlib import cohorts
from cxrlib.book import leftovers, scan
from cxrlib.guard import latch

HEAD = """
import base64, contextlib, io, json, os, re, sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, SVG, Image, JSON, Markdown, display
from PIL import Image as Pillow

from cxrlib import cohorts, guard, schema
from cxrlib.show.notebook import figure, keep, quiz, show
from cxrlib.show.say import say
from cxrlib.show.words import count, fmt

cohort = cohorts.load("mimic")
t = cohort.table.copy()
t["patient"] = t["patient_id"]
film = cohort.images(np.array([0]))[0]
pid, study, dicom = (str(t[c].iloc[0]) for c in ("patient_id", "study_id", "image_id"))
days = pd.read_csv(next(Path(os.environ["CXRBOOK_DATA"]).rglob("*metadata*")))["StudyDate"]
day = pd.Timestamp(str(days.iloc[0]))
planted = json.loads(os.environ["PLANTED"])
report = next(r for r in t["report"].dropna() if planted["name"] in r)
words = re.findall(r"\\w+", planted["sentence"])
few = pd.Series({"F": 7, "M": 230}, name="images")
table = few.rename_axis("sex").reset_index()
b64 = lambda data: base64.b64encode(data).decode()
picture = lambda **o: plt.figure(figsize=(3, 3)).subplots(**o)
row = {"paper": "S", "artefact": "Table 1", "protocol": "corrected", "cohort": cohort.name,
       "model": "phantom-resnet", "method": "zero-shot", "label": "Edema", "attribute": "sex",
       "group": "F", "metric": "auc", "value": 0.7, "n": 100, "n_positive": 50, "n_negative": 50,
       "n_patients": 80, "seed": 1}

def png(array):
    file = io.BytesIO()
    Pillow.fromarray(array).save(file, "PNG")
    return file.getvalue()

@contextlib.contextmanager
def attempt():
    try:
        yield
    except guard.GuardError:
        print("stopped")
    finally:
        plt.close("all")
"""

REFUSED, MASKED, SEEN = "refused", "masked", "seen"
ATTEMPTS = [
    # identifiers in other spellings
    (REFUSED, "print(pid)"),
    (REFUSED, "print(f'{int(pid):,}')"),
    (REFUSED, "print(f'{int(pid):,}'.replace(',', ' '))"),
    (REFUSED, "print(f'{int(pid):,}'.replace(',', '.'))"),
    (REFUSED, "print(f'{int(pid):_}')"),
    (REFUSED, "print(f'{int(pid):,}'.replace(',', '\\u202f'))"),
    (REFUSED, 'print(f"{int(pid):,}".replace(",", "\'"))'),
    (REFUSED, "print(pid[:4], pid[4:])"),
    (REFUSED, "print(pid[:4] + '-' + pid[4:])"),
    (REFUSED, "print(' '.join(pid))"),
    (REFUSED, "print('.'.join(pid))"),
    (REFUSED, "print(float(pid))"),
    (REFUSED, "print(f'{int(pid):.7e}')"),
    (REFUSED, "print('patient', 'p' + pid, 'study', 's' + study)"),
    (REFUSED, "print(f's{int(study):,}')"),
    (REFUSED, "say(fmt(int(pid)))"),
    (REFUSED, "say(str(int(pid)))"),
    (REFUSED, "say(str(float(study)))"),
    (REFUSED, "say(f'Patient {int(pid):,} is odd.')"),
    (REFUSED, "show(pd.DataFrame({'who': [f'{int(pid):,}'], 'share': [0.5]}))"),
    (REFUSED, "display(pd.DataFrame({'who': [int(pid)], 'share': [0.5]}))"),
    (REFUSED, "display(JSON({'who': int(pid)}))"),
    (REFUSED, "display(Markdown(f'Patient **{pid}**'))"),
    (REFUSED, "print(f'patient{pid}')"),
    (REFUSED, "display(Markdown('x'), metadata={'who': pid})"),
    (REFUSED, "print(dicom)"),
    (REFUSED, "print(dicom.upper())"),
    (REFUSED, "print(dicom.split('-')[0])"),
    (REFUSED, "print('-'.join(dicom.split('-')[:2]))"),
    (REFUSED, "print(dicom.split('-')[-1])"),
    (REFUSED, "print(dicom[:12])"),
    (REFUSED, "print(dicom.replace('-', '_'))"),
    (REFUSED, "print(cohort.films['file'].iloc[0])"),
    (SEEN, "print(pid[::-1])"),  # identifiers ... in code
    (SEEN, "print(b64(pid.encode()))"),  # identifiers ... in code
    # dates
    (REFUSED, "print(f'{day:%Y-%m-%d}')"),
    (REFUSED, "print(f'{day:%Y%m%d}')"),
    (REFUSED, "print(f'{day:%d/%m/%Y}')"),
    (REFUSED, "print(f'{day:%m/%d/%Y}')"),
    (REFUSED, "print(f'{day:%d.%m.%Y}')"),
    (REFUSED, "print(f'{day.day}.{day.month}.{day.year}')"),
    (REFUSED, "print(f'{day:%Y/%m/%d}')"),
    (REFUSED, "print(f'{day:%d %B %Y}')"),
    (REFUSED, "print(f'{day:%B %d, %Y}')"),
    (REFUSED, "print(f'{day:%d-%b-%Y}')"),
    (REFUSED, "print(f'the {day.day}th of {day:%B}, {day.year}')"),
    (REFUSED, "print(day.isoformat())"),
    (REFUSED, "print(f'in {day:%B %Y}')"),
    (REFUSED, "say(f'{day:%d %b %Y}')"),
    # names and pieces of reports
    (REFUSED, "print(planted['name'])"),
    (REFUSED, "print(planted['name'].upper())"),
    (REFUSED, "print(planted['name'].lower())"),
    (REFUSED, "print(planted['name'].split('-')[0].lower())"),
    (REFUSED, "print(report[:80])"),
    (REFUSED, "print(planted['sentence'])"),
    (REFUSED, "print(' '.join(words[1:5]))"),
    (REFUSED, "print(' '.join(words[1:6]).upper())"),
    (REFUSED, "say('_'.join(words[-6:]))"),
    (REFUSED, "print(', '.join(words[2:9]))"),
    (REFUSED, "quiz(' '.join(words[1:6]) + '?', {'a': (True, 'b')})"),
    (SEEN, "print(' '.join(words[7:10]))"),  # three words of a report
    # text in pictures
    (REFUSED, "picture().set_title(pid); plt.savefig(io.BytesIO())"),
    (REFUSED, "picture().set_xlabel(f'{int(pid):,}'); plt.savefig(io.BytesIO())"),
    (REFUSED, "picture().set_xticks([0, 1], [pid, study]); plt.savefig(io.BytesIO())"),
    (REFUSED, "picture().plot([0, 1], label=dicom); plt.legend(); plt.savefig(io.BytesIO())"),
    (REFUSED, "picture().annotate(' '.join(words), (0, 0)); plt.savefig(io.BytesIO())"),
    (REFUSED, "picture(); plt.suptitle(planted['name']); plt.savefig(io.BytesIO(), format='svg')"),
    (REFUSED, "picture().text(0, 0, f'{day:%d %B %Y}'); plt.savefig(io.BytesIO(), format='pdf')"),
    (REFUSED, "picture().table(cellText=[[pid]]); plt.savefig(io.BytesIO())"),
    (REFUSED, "picture().set_title('7 patients'); plt.savefig(io.BytesIO())"),
    (REFUSED, "picture().set_title(pid); figure('fig-a', 'A caption.', 'A text.')"),
    (SEEN, "picture().bar(['F', 'M'], few); figure('fig-b', 'A.', 'B.')"),  # heights of bars
    # films by other roads
    (REFUSED, "picture().imshow(film); plt.savefig(io.BytesIO())"),
    (REFUSED, "plt.figure().figimage(film); plt.savefig(io.BytesIO())"),
    (REFUSED, "picture().pcolormesh(film); figure('fig-c', 'A.', 'B.')"),
    (REFUSED, "picture().pcolor(film[:64, :64]); plt.savefig(io.BytesIO(), format='svg')"),
    (REFUSED, "picture().imshow(film[::4, ::4]); plt.savefig(io.BytesIO())"),
    (REFUSED, "picture().imshow(film[64:65]); plt.savefig(io.BytesIO())"),
    (REFUSED, "picture().matshow(film[:24, :24]); plt.savefig(io.BytesIO())"),
    (REFUSED, "display(Pillow.fromarray(film))"),
    (REFUSED, "display(Pillow.fromarray(film[::8, ::8]))"),
    (REFUSED, "display(Image(png(film)))"),
    (REFUSED, "print(film.tolist())"),
    (REFUSED, "print(film[64].tolist())"),
    (REFUSED, "print(film)"),
    (REFUSED, "print(*film[64])"),
    (REFUSED, "print(b64(png(film)))"),
    (REFUSED, "print(png(film[::4, ::4]).hex())"),
    (REFUSED, "display(HTML(f'<img src=\"data:image/png;base64,{b64(png(film))}\">'))"),
    (SEEN, "picture().imshow(film[::8, ::8]); plt.savefig(io.BytesIO())"),  # twenty cells
    (SEEN, "picture().plot(film[64]); plt.savefig(io.BytesIO())"),  # drawn as lines
    # small cells, ages, single patients
    (MASKED, "print(few)"),
    (MASKED, "display(few)"),
    (MASKED, "display(table)"),
    (MASKED, "show(table)"),
    (MASKED, "print(table)"),
    (MASKED, "keep(schema.results([row | {'n_positive': 3}]))"),
    (MASKED, "keep(schema.results([row | {'n_patients': 4}]))"),
    (MASKED, "say(count(7))"),
    (MASKED, "say('7 patients')"),
    (MASKED, "print(table.to_string())"),
    (MASKED, "print(few.to_string())"),
    (MASKED, "display(table.style)"),
    (REFUSED, "print(t[['age', 'sex']].head().to_string())"),
    (REFUSED, "print(t[['age', 'sex']].head(2).to_dict('records'))"),
    (REFUSED, "print(t[['age', 'sex']].head(2).to_json())"),
    (REFUSED, "display(HTML('<b>7 patients</b>'))"),
    (REFUSED, "print(f'{table.images[0]:<10}', *('F', 7), sep='  ')"),
    (REFUSED, "print(few.to_dict())"),
    (REFUSED, "print('7 patients')"),
    (REFUSED, "print('the oldest patient is aged 93')"),
    (REFUSED, "print('a 91-year-old man')"),
    (REFUSED, "show(pd.DataFrame({'age': [93, 40], 'n': [30, 40]}))"),
    (REFUSED, "display(t[['age', 'sex']].head(3))"),
    (MASKED, "print(t[['age', 'sex', 'race']].head(3))"),
    (REFUSED, "show(t[['sex', 'race', 'view']].head(3))"),
    (REFUSED, "display(t['age'].head())"),
    (REFUSED, "display(HTML(t[['sex', 'age']].head(3).to_html()))"),
    (REFUSED, "show(t.head(3))"),
    (MASKED, "print(t.iloc[0])"),
    (SEEN, "print(t['age'].head(3).tolist(), t['age'].max())"),  # a few values, bare
    (SEEN, "print('women', 7)"),  # a count in a sentence of one's own
    # files in the working folder
    (REFUSED, "t.head(20).to_csv('rows-1.csv')"),
    (REFUSED, "t[['sex', 'age']].to_csv('rows-2.csv', index=False)"),
    (REFUSED, "table.assign(n=table['images']).to_parquet('small.parquet')"),
    (REFUSED, "np.save('film.npy', film)"),
    (REFUSED, "np.savetxt('film.csv', film)"),
    (REFUSED, "np.savetxt('film.txt', film)"),
    (REFUSED, "Pillow.fromarray(film).save('film.png')"),
    (REFUSED, "Pillow.fromarray(film[::8, ::8]).save('small.png')"),
    (REFUSED, "Path('notes.txt').write_text(planted['sentence'])"),
    (REFUSED, "Path('book').mkdir(exist_ok=True); t['report'].to_pickle('book/reports.pkl')"),
]  # fmt: skip
TYPED = [  # cells, given what was planted
    ("code", "# patient {pid} is odd\n1"),
    ("code", "odd = 'p{pid}'"),
    ("markdown", "As study s{study} shows."),
    ("markdown", "The report says: {sentence}"),
    ("code", "text = '''{sentence}'''"),
    ("markdown", "See {dicom}."),
]
INNOCENT = [
    *[f"print('{year}-0{m}-1{m}')" for year in (1999, 2019, 2024, 2025) for m in range(1, 6)],
    *[f"print({n})" for n in (12345678, 20250711, 10_000_000, 99_999_999, 5e7, 123456.789)],
    *[f"print('{text}')" for text in (
        "12,345,678 films", "1 000 000 of 12 000 000", "March", "in March and May", "4 March 2025",
        "March 3, 2025", "see Smith and Brown 2019", "doi:10.1038/s41746-025-12345678",
        "arXiv 2501.12345", "0.12345678", "3.14159265358979", "1e-7", "p = 0.00012345",
        "seed 7", "seed: 7", "5 models", "3 of 4 models", "epoch 3", "Figure 3", "chapter 7",
        "ages 18 to 89", "age 65 to 80", "aged 50", "over 90", "18-90", "90 % of the patients",
        "95 % interval", "AUC 0.91", "age gap -0.067", "a share of 0.07", "no pneumothorax",
        "pleural effusion and pneumothorax", "edema, pneumonia, atelectasis, consolidation",
        "White, Black, Asian, other", "F and M", "PA and AP", "version 2.1.0", "mimic-cxr 2.1.0",
        "sha256 0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9",
        "commit b161468", "fingerprint a1b2c3d4e5f6", "224 x 224 pixels", "2 x 3 cells",
        "[0.71, 0.84]", "-0.23 [-0.26, -0.19]", "n = 1,234", "(12, 345)", "100 of 1,000 images",
        "a decrease of 2150 images", "margins 2187, second 2150", "images 2150 3 12", "12 patients",
        "10 patients", "230 films", "0 patients",
    )],
    *[f"print(np.round(np.linspace(0, 1, {n}), 2))" for n in range(2, 12)],
    *[f"print(list(range({n})))" for n in range(2, 12)],
    *[f"say('{n}')" for n in (10, 12345678, 20250711, 0, 1000, 3_141_592)],
    *[f"say('{text}')" for text in (
        "4,000", "0.91 [0.88, 0.93]", "undefined", "women", "the lungs", "March 2025", "seed 3",
        "Atelectasis and Edema", "12 of 14 findings", "below 0 in 3 of 4 models",
    )],
    *[f"show(pd.DataFrame({{'model': ['a', 'b'], '{c}': [0.91, 0.{n}]}}))"
      for c in ("auc", "gap", "share", "ECE", "mean age") for n in range(71, 80)],
    *[f"show(pd.DataFrame({{'group': ['F', 'M'], 'images': [{n}, {n + 40}]}}))"
      for n in range(20, 50)],
    *[f"display(t.groupby('sex')['age'].agg(['mean', 'count']).round({n}))" for n in range(3)],
    *[f"picture().plot(range({n})); figure('fig-i{n}', 'A line.', 'A line.')" for n in (2, 5, 9)],
    *[f"picture().imshow(np.eye({n})); plt.colorbar(plt.gca().images[0]); "
      f"figure('fig-h{n}', 'A heat map.', 'Ones.')" for n in (3, 8, 14)],
    "picture().set_title('Pneumothorax by age, 65-80'); figure('fig-j', 'A.', 'B.')",
    "Path('summary.csv').write_text('model,auc\\na,0.91\\n')",
    "Path('notes.md').write_text('AUC is higher in men.')",
]  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """What a made-up MIMIC-CXR, which this process and its kernels find, says of one film."""
    folder = tmp_path_factory.mktemp("data")
    sentence = mimic_tree.write(folder / "mimic-cxr", n_images=60, per_cell=0)["canaries"][
        "sentence"
    ]
    name = next(word for word in sentence.split()[1:] if word[0].isupper())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRBOOK_DATA", str(folder))
        patch.setenv("CXRBOOK_CACHE", str(folder / "cache"))
        patch.setenv("PLANTED", json.dumps({"name": name, "sentence": sentence}))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setattr(latch, "_protected", [])
        patch.setattr(latch, "_registers", [])
        film = cohorts.load("mimic").table.iloc[0]
        yield {"pid": film["patient_id"], "study": film["study_id"], "dicom": film["image_id"]} | {
            "sentence": sentence
        }


@pytest.fixture(scope="module")
def executed(planted, tmp_path_factory):
    """The notebook of all attempts, and what the last look found in it and in its folder."""
    root = tmp_path_factory.mktemp("root")
    before = leftovers.state(root)
    cells = [nbformat.v4.new_code_cell(HEAD)]
    for code in [*(code for _, code in ATTEMPTS), *INNOCENT]:
        cells.append(nbformat.v4.new_code_cell(f"with attempt():\n    {code}"))
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, resources={"metadata": {"path": str(root)}}).execute()
    notebook = json.loads(nbformat.writes(notebook))
    left = leftovers.hits(root, before)
    assert {path.name for path in leftovers.state(root)} == {"summary.csv", "notes.md"}
    return notebook, scan.notebook(notebook, "a.ipynb"), " ".join(hit.file for hit in left)


def outcome(executed, i, code=""):
    """refused, masked or seen of the i-th cell behind the head."""
    notebook, hits, left = executed
    said = json.dumps(notebook["cells"][i + 1].get("outputs", []))
    file = re.search(r"[\w-]+\.(?:csv|parquet|npy|png|txt|pkl|md)(?=')", code)
    if i + 2 in {hit.cell for hit in hits} or "stopped" in said or (file and file[0] in left):
        return REFUSED
    return MASKED if re.search("<10|&lt;10|fewer than 10|hidden|show it with", said) else SEEN


def test_attempts_of_a_careless_author(executed):
    found = [outcome(executed, i, code) for i, (_, code) in enumerate(ATTEMPTS)]
    wrong = [
        f"{code}: {one}, expected {wanted}"
        for one, (wanted, code) in zip(found, ATTEMPTS, strict=True)
        if one != wanted
    ]
    assert not wrong, "\n".join(wrong)
    assert len(ATTEMPTS) > 100 and found.count(SEEN) <= 8


def test_no_false_alarm(executed):
    assert len(INNOCENT) >= 200
    first = len(ATTEMPTS)
    wrong = [
        code for i, code in enumerate(INNOCENT, first) if outcome(executed, i, code) == REFUSED
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("kind", "text"), TYPED)
def test_what_an_author_typed_from_the_data(planted, kind, text):
    data, typed = (
        {"cell_type": kind, "source": source, "metadata": {}, "outputs": []}
        for kind, source in (("code", 'data = "mimic"'), (kind, text.format(**planted)))
    )
    hits = scan.notebook({"cells": [data, typed], "metadata": {}}, "a.ipynb")
    assert hits and all(hit.cell == 2 and hit.kind.startswith("typed") for hit in hits)
