"""Whole books on made-up MIMIC-CXR and NIH folders; of the former nothing may be seen outside."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import mimic_tree
import nih_tree
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from scipy.signal import fftconvolve
from test_book import check

from cxrlib import guard
from cxrlib.book import dossier, facts, manifest, scan
from cxrlib.book.build import build
from cxrlib.book.chapters import chapters
from cxrlib.core.errors import BookError
from cxrlib.guard import register
from cxrlib.show import notebook

PER_CELL = 3  # films a cell of the balanced cohorts
SEEN = 0.7  # likeness: 0.85 and more where the pattern is, at most 0.5 in charts
SMALL = {
    "models": "phantom-resnet",
    "n_images": 120,
    "n_twins": 60,
    "n_detector": 100,
    "n_resamples": 20,
    "n_permutations": 20,
    "n_draws": 2,
    "n_splits": 2,
    "n_seeds": 1,
    "epochs": 1,
    "epochs_head": 1,
    "epochs_encoder": 1,
}
# A court on fewer phantoms judges nothing; what of it depends on data is its last section.
COURT = {"n_images": 800, "biases": "sex", "remedies": "LEACE, group thresholds"}
OF_BALANCED = {"fine_tuning", "splits_and_seeds"}
# What these do with films, groups and drains, others do as well: they go on from labels and scores,
# which look the same whatever the cohort. The book on MIMIC-CXR has them all.
# The NIH tree has too few films in a group for any use to be judged.
AS_IN_OTHER_BOOKS = {
    "phantoms",
    "gap_causes",
    "parts_of_a_gap",
    "wordings",
    "splits_and_seeds",
    "recalibration",
    "small_groups",
    "probes",
    "court",
    "encoded_or_used",
    "net_benefit",
    "crossed_groups",
    "watching",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project, in a folder where nobody else writes."""
    root = tmp_path_factory.mktemp("project")
    for name in ("book", "chapters"):
        leave = shutil.ignore_patterns("chapters" if name == "book" else "*.ipynb", "__pycache__")
        shutil.copytree(ROOT / name, root / name, ignore=leave)
    for name in ("_config.yml", "_toc.yml", "requirements.lock"):
        shutil.copy(ROOT / name, root)
    (root / "benchmarks").symlink_to(ROOT / "benchmarks")
    return root


def book_on(data, project, out, leave=()):
    """A book on a data set with small parameters. Chapters that have no cohort, and those to
    `leave`, are taken as they are from the book that was made before the tests."""
    profile = {}
    (out / "chapters").mkdir()
    for chapter in chapters(project):
        title = chapter.name[3:]
        if "data" in chapter.parameters and title not in leave:
            small = {name: x for name, x in SMALL.items() if name in chapter.parameters}
            if title in OF_BALANCED:  # a balanced cohort as small as the trees
                small["options"] = {"per_cell": PER_CELL}
            if title == "court":
                small |= COURT
            profile[chapter.name] = {"data": data} | small
        else:
            for path in (ROOT / "book" / "chapters").glob(f"{chapter.name}.*"):
                shutil.copy(path, out / "chapters")
    build(project, out=out, profile=profile)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A data folder with both data sets, and what was planted in the credentialed one."""
    folder = tmp_path_factory.mktemp("data")
    nih_tree.write(folder / "nih-cxr14", n_images=200, per_cell=PER_CELL)
    return folder, mimic_tree.write(folder / "mimic-cxr", n_images=240, per_cell=PER_CELL)


@pytest.fixture(scope="module")
def on_data(planted, tmp_path_factory):
    """The environment that finds them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRBOOK_DATA", str(planted[0]))
        patch.setenv("CXRBOOK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def credentialed(project, on_data, tmp_path_factory):
    """Folder of the book on MIMIC-CXR: executed chapters and pages."""
    out = tmp_path_factory.mktemp("mimic-book")
    book_on("mimic", project, out)
    return out


def test_nothing_planted_is_seen_in_the_book(credentialed, planted, tmp_path):
    folder, truth = planted
    canaries = truth["canaries"]
    words = [canaries[what] for what in ("name", "sentence", "procedure", "provider")]
    words += [str(folder), *canaries["subjects"], *canaries["studies"], *canaries["dicoms"]]
    words += [*canaries["dates"], *(day.replace("-", "") for day in canaries["dates"])]
    words += [text for text in truth["images"]["findings_text"].dropna().unique() if len(text) > 80]
    files = [path for path in credentialed.rglob("*") if path.is_file()]
    assert {"01_data_curation.ipynb", "searchindex.js", "index.html"} <= {p.name for p in files}
    (tmp_path / "there").write_text(f"before {canaries['sentence']} behind")
    assert holding(tmp_path, words, tmp_path) == {tmp_path / "there"}  # the search finds it
    # Eight digits of a table with all its digits may look like a patient's number by chance. What
    # is the same in the book that was made without these data was not taken from them.
    others = [*ROOT.glob("book/chapters/*.ipynb"), *ROOT.glob("_build/html/tables/*.csv")]
    others = {path.read_bytes() for path in others}
    seen = holding(credentialed, words, tmp_path) - {credentialed / "build.log"}
    assert [path for path in seen if path.read_bytes() not in others] == []


def holding(folder, words, tmp_path):
    """Files with one of the words; a thousand words in 30 MB take Python 15 s, and grep none."""
    assert not any("\n" in word or not word for word in words)
    (tmp_path / "words.txt").write_text("\n".join(words))
    command = ["grep", "-rlaF", "-f", "words.txt", "--exclude=words.txt", folder]
    found = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True
    )
    assert found.returncode < 2, found.stderr
    return set(map(Path, found.stdout.splitlines()))


def likeness(picture, pattern):
    """Largest normalised cross-correlation of a pattern, at several sizes, with any place."""
    grey = Image.open(io.BytesIO(picture)).convert("L")
    grey = np.asarray(grey.resize((grey.width // 2, grey.height // 2)), float)
    best = 0.0
    for side in (8, 12, 16, 24, 32, 48):
        stamp = np.asarray(Image.fromarray(pattern).resize((side, side)), float)
        stamp = (stamp - stamp.mean()) / stamp.std()
        mean, square, product = (
            fftconvolve(a, b / side**2, "valid")
            for a, b in ((grey, np.ones_like(stamp)), (grey**2, np.ones_like(stamp)), (grey, stamp))
        )
        best = max(best, float((np.abs(product) / np.sqrt(square - mean**2 + 25)).max()))
    return best


def pictures(path):
    """Raster images in the outputs of a notebook, as bytes."""
    for cell in json.loads(path.read_text())["cells"]:
        for output in cell.get("outputs", []):
            for kind, data in output.get("data", {}).items():
                if kind.startswith("image/") and "svg" not in kind:
                    yield base64.b64decode("".join(data))


def test_the_dossier_of_guarded_data_is_filled(credentialed, planted):
    # what it must not hold is looked for with the other pages, above
    known = facts.gather(sorted((credentialed / "chapters").glob("*.ipynb")))
    items = dossier.fill(known.facts, known.kinds, dossier.Answers({}, {}))["tripod_ai"]
    counts = dossier.counts(items)
    assert known.guarded and "MIMIC-CXR" in known.facts["cohort.source"].text
    assert counts[dossier.RUN] >= 0.6 * len(items)
    made = {path.name for path in (credentialed / "html" / "dossier").iterdir()}
    assert {"dossier.md", "dossier.json", "chai-phantom-resnet.xml"} <= made
    dossier.refuse(known, {"dossier.md": str(items)})
    canaries = planted[1]["canaries"]
    for text in (canaries["sentence"], ", ".join(canaries["subjects"])):
        with pytest.raises(BookError, match="was not written"):
            dossier.refuse(known, {"dossier.md": text})
    assert not re.search(r"(?<!at most )\b[1-9] (?:films|patients|images)\b", str(items))


def test_no_film_is_seen_in_the_book(credentialed, planted):
    folder, truth = planted
    pattern = truth["canaries"]["pattern"]
    rows = truth["images"].set_index("image_id")
    film = folder / "mimic-cxr" / rows.loc[truth["canaries"]["pattern_image"], "file"]
    for scale in (1, 2, 3):  # the search finds it where it is
        with Image.open(film) as image:
            page = Image.new("L", (700, 500), 255)
            page.paste(image.resize((scale * image.width, scale * image.height)), (61, 40))
        shown = io.BytesIO()
        page.save(shown, "PNG")
        assert likeness(shown.getvalue(), pattern) > SEEN
    seen = [p for path in sorted(credentialed.glob("chapters/*.ipynb")) for p in pictures(path)]
    assert len(seen) > 20
    assert max(likeness(picture, pattern) for picture in seen) < SEEN
    assert not any(map(scan.photographic, seen))
    of_pages = [p for p in (credentialed / "html").rglob("*.png") if "_static" not in p.parts]
    assert {p.read_bytes() for p in of_pages} <= set(seen)


def test_kept_results_rest_on_ten_or_more(credentialed):
    tables = [t for path in credentialed.glob("chapters/*.ipynb") for t in notebook.kept(path)]
    assert sum(map(len, tables)) > 100
    for table in tables:
        counts = table[guard.COUNTS]
        assert not ((counts > 0) & (counts < guard.MIN_CELL)).any(axis=None)
        few = table["note"].str.contains("suppressed: ")
        assert table.loc[few, "value"].isna().all()
    assert any(table["note"].str.contains("suppressed").any() for table in tables)
    assert any(table["value"].notna().any() for table in tables)


def test_its_manifests_hold_and_tell_nothing(credentialed, project):
    said = dict(manifest.verify(project, str(credentialed)))
    assert len(said) == 2 and all(said.values()), said
    for path in credentialed.rglob(manifest.FILE):
        assert scan.text_kinds(path.read_text(), scan.watch(True)) == set()


def test_the_pages_of_the_book(credentialed, project):
    check(credentialed / "html", [c.name for c in chapters(project)])


def test_chapters_say_that_they_withhold(credentialed):
    for number in ("01", "02", "06"):
        [page] = (credentialed / "html" / "chapters").glob(f"{number}_*.html")
        assert "Not shown: " in page.read_text()


def test_results_of_single_images_stay_with_the_data(credentialed, planted):
    derived = planted[0] / "derived"
    assert list(derived.glob("embeddings/*/*.parquet"))
    assert list((derived / register.FOLDER).glob("*.npz"))


def test_a_whole_book_on_nih(project, on_data, tmp_path):
    """Films are shown and tuned on, drains are read from NEATX, and of race there is nothing."""
    book_on("nih", project, tmp_path, AS_IN_OTHER_BOOKS)
    check(tmp_path / "html", [c.name for c in chapters(project)])
    paths = sorted(tmp_path.glob("chapters/*.ipynb"))
    shown = [picture for path in paths for picture in pictures(path)]
    assert any(map(scan.photographic, shown))  # open films may be seen
    cohorts = {name for path in paths for t in notebook.kept(path) for name in t["cohort"].unique()}
    assert "nih-cxr14-test (part)" in cohorts
