"""Whole books on made-up MIMIC-CXR and NIH folders; of the former nothing may be seen outside."""

import base64
import io
import json
import shutil

import mimic_tree
import nih_tree
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from scipy.signal import fftconvolve
from test_book import check

from cxrlib import guard
from cxrlib.book import scan
from cxrlib.book.build import build
from cxrlib.book.chapters import chapters, find
from cxrlib.guard import register
from cxrlib.show import notebook

PER_CELL = 3  # films a cell of the balanced cohorts
SEEN = 0.7  # likeness: 0.85 and more where the pattern is, at most 0.5 in charts
SMALL = {
    "models": "phantom-resnet",
    "n_images": 120,
    "n_twins": 60,
    "n_detector": 200,
    "n_simulations": 20,
    "n_resamples": 20,
    "n_permutations": 20,
    "n_draws": 2,
    "n_splits": 2,
    "n_seeds": 1,
    "epochs": 1,
    "epochs_head": 1,
    "epochs_encoder": 1,
}


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """The project, its chapters with a balanced cohort as small as the trees."""
    root = tmp_path_factory.mktemp("project")
    for name in ("book", "chapters"):
        leave = shutil.ignore_patterns("chapters" if name == "book" else "*.ipynb", "__pycache__")
        shutil.copytree(ROOT / name, root / name, ignore=leave)
    for name in ("_config.yml", "_toc.yml", "requirements.lock"):
        shutil.copy(ROOT / name, root)
    for name in ("fine_tuning", "splits_and_seeds"):
        [tuning] = find(root, name)
        source = tuning.path.read_text()
        small = source.replace("options: dict = {}", f"options: dict = {{'per_cell': {PER_CELL}}}")
        assert small != source
        tuning.path.write_text(small)
    return root


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    """A data folder with both data sets, and what was planted in the credentialed one."""
    folder = tmp_path_factory.mktemp("data")
    nih_tree.write(folder / "nih-cxr14", n_images=200, per_cell=PER_CELL)
    return folder, mimic_tree.write(folder / "mimic-cxr", n_images=240, per_cell=PER_CELL)


@pytest.fixture(scope="session")
def on_data(planted, tmp_path_factory):
    """The environment that finds them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRBOOK_DATA", str(planted[0]))
        patch.setenv("CXRBOOK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def credentialed(project, on_data, tmp_path_factory):
    """Folder of the book on MIMIC-CXR: executed chapters and pages."""
    out = tmp_path_factory.mktemp("mimic-book")
    build(project, {"data": "mimic", **SMALL}, out)
    return out


def test_nothing_planted_is_seen_in_the_book(credentialed, planted):
    folder, truth = planted
    canaries = truth["canaries"]
    words = [canaries[what] for what in ("name", "sentence", "procedure", "provider")]
    words += [str(folder), *canaries["subjects"], *canaries["studies"], *canaries["dicoms"]]
    words += [*canaries["dates"], *(day.replace("-", "") for day in canaries["dates"])]
    words += [text for text in truth["images"]["findings_text"].dropna().unique() if len(text) > 80]
    words = [word.encode() for word in words]
    files = [path for path in credentialed.rglob("*") if path.is_file()]
    assert {"01_data_curation.ipynb", "searchindex.js", "index.html"} <= {p.name for p in files}
    for path in files:
        if path.name != "build.log":  # of the machine, no part of the book
            content = path.read_bytes()
            assert not [word for word in words if word in content], path.name


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


def test_a_whole_book_on_nih(project, on_data, credentialed, tmp_path):
    """Films are shown and tuned on, drains are read from NEATX, and of race there is nothing."""
    (tmp_path / "chapters").mkdir()
    for chapter in chapters(project):
        if "data" not in chapter.parameters:  # the same in every book, and kept as such
            for path in (credentialed / "chapters").glob(f"{chapter.name}.*"):
                shutil.copy(path, tmp_path / "chapters")
    build(project, {"data": "nih", **SMALL}, tmp_path)
    check(tmp_path / "html", [c.name for c in chapters(project)])
    paths = sorted(tmp_path.glob("chapters/*.ipynb"))
    shown = [picture for path in paths for picture in pictures(path)]
    assert any(map(scan.photographic, shown))  # open films may be seen
    cohorts = {name for path in paths for t in notebook.kept(path) for name in t["cohort"].unique()}
    assert "nih-cxr14-test (part)" in cohorts
