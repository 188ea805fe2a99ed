"""The command line: one clear line and an exit code for what the user can mend."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from cxrlib import cohorts, models
from cxrlib.embed.extract import embed, store_folder
from cxrlib.embed.store import MANIFEST, load
from cxrlib.models.loading import Ensemble
from tests.conftest import ROOT, environment


def in_a_process(*arguments, cwd):
    command = [sys.executable, "-m", "cxrlib.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "code"), [(["chapters"], 0), (["run", "2", "-p", "n_imags=3"], 2)]
)
def test_a_process_of_its_own_says_and_returns_the_same(built, cxrbook, arguments, code):
    apart, here = in_a_process(*arguments, cwd=built), cxrbook(*arguments, cwd=built)
    assert apart.returncode == here.returncode == code
    assert (apart.stdout, apart.stderr) == (here.stdout, here.stderr)


def test_a_folder_is_that_of_where_one_stands(cxrbook, tmp_path, monkeypatch):
    """Chapters run elsewhere, and find the same one."""
    monkeypatch.setenv("CXRBOOK_DATA", "data")
    assert cxrbook("profiles", cwd=tmp_path).returncode == 0
    assert os.environ["CXRBOOK_DATA"] == str(tmp_path / "data")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "zeroshot"], 2, "did you mean 'zero_shot'"),
        (["run", "9"], 2, "no chapter '9'"),
        (["run", "2", "-p", "n_imags=3"], 2, "did you mean 'n_images'"),
        (["run", "2", "-p", "n_images=many"], 2, "not of type int"),
        (["run", "2", "-p", "n_images"], 2, "expected NAME=VALUE"),
        (["run", "2", "--jobs", "0"], 2, "'--jobs': Input should be greater than or equal to 1"),
        (["runn"], 2, "Did you mean 'run'? (see cxrbook --help)"),
        (["sweep", "2"], 2, "Missing option '-g' / '--grid'"),
        (["models", "verify", "biovil", "--protocol", "x"], 2, "'x' is not one of 'corrected', "),
        (["pdf", "2", "--out", "requirements.lock/out"], 1, "cannot write to"),
        (["build", "-p", "n_images=many"], 2, "not of type int"),
        (["run", "2", "--out", "requirements.lock/out"], 1, "cannot write to"),
        (["build", "--out", "requirements.lock/out"], 1, "cannot write to"),
        (["sync", "--check"], 1, "not in sync"),
        (["verify", "mime"], 2, "no run 'mime', nor a folder; "),
    ],
)
def test_errors_are_one_line(built, cxrbook, arguments, code, words):
    done = cxrbook(*arguments, cwd=built)
    assert done.returncode == code
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("cxrbook: ") and words in done.stderr


LOADED = """
import atexit, sys
from cxrlib.cli import main
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
main()
"""
NETWORKS = {"torch", "torchvision", "open_clip", "transformers", "timm", "peft", "cv2", "sklearn"}
TABLES = {"pandas", "matplotlib", "jupytext"}


@pytest.mark.parametrize(
    ("command", "spared"),
    [
        ("--help", NETWORKS | TABLES | {"numpy", "nbformat", "pydantic"}),
        ("chapters", NETWORKS | TABLES | {"numpy", "nbformat"}),
        ("build", NETWORKS | TABLES),  # where nothing changed
        ("verify", NETWORKS | TABLES | {"numpy", "nbformat", "pyarrow"}),
        ("models", NETWORKS),
        ("check-data", NETWORKS),
    ],
)
def test_commands_do_not_wait_for_packages_that_they_do_not_use(built, command, spared):
    run = [sys.executable, "-c", LOADED, command]
    done = subprocess.run(run, cwd=built, env=environment(), capture_output=True, text=True)
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "cxrlib.cli" in loaded and not loaded & spared


def test_missing_lock_is_one_line(mini, cxrbook):
    (mini / "requirements.lock").unlink()
    done = cxrbook("build", cwd=mini)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "requirements.lock is missing" in done.stderr


def test_chapters_lists_parameters_with_defaults(built, cxrbook):
    done = cxrbook("chapters", cwd=built)
    assert done.returncode == 0
    assert "02  A chapter of the miniature book  (02_zero_shot)" in done.stdout
    assert "n_images: int = 20  # in [2, 100], how many" in done.stdout


def test_build_does_nothing_when_nothing_changed(built, cxrbook):
    done = cxrbook("build", cwd=built)
    assert done.returncode == 0
    assert done.stdout.startswith("nothing changed: open ")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("cohorts", cohorts.names()),
        ("models", [*models.model_names(), *models.remedied_models()]),
    ],
)
def test_catalogues(built, cxrbook, what, names):
    done = cxrbook(what, cwd=built)
    assert done.returncode == 0, done.stderr
    assert names and all(name in done.stdout for name in names)


# --- embed ---

MODEL = "phantom-resnet"
SMALL = ("embed", "-m", MODEL, "--n-images", "40", "--rows-per-shard", "16")


@pytest.fixture
def inside(tmp_path, monkeypatch, cxrbook):
    """Runs the command with a folder of its own: exit code, output, error output."""
    monkeypatch.setenv("CXRBOOK_CACHE", str(tmp_path))
    monkeypatch.delenv("CXRBOOK_DATA", raising=False)

    def command(*arguments):
        done = cxrbook(*arguments)
        return done.returncode, done.stdout, done.stderr

    return command


def test_embed_fills_what_chapters_read(inside, tmp_path):
    code, out, _ = inside(*SMALL)
    folder = store_folder(cohorts.load("phantom", n_images=40), models.load_model(MODEL))
    assert code == 0
    line = rf"{MODEL}: 40 images in [\d.]+ s, [\d,]+ a second; 0.0 MB in {folder}\n"
    assert re.fullmatch(line, out)
    unseen = cohorts.study("phantom", 40, 1907, {}, preprocessing="authors")
    unseen = replace(unseen, images=lambda _: pytest.fail("chapters have to find it"))
    assert len(embed(unseen, models.load_model(MODEL))) == 40
    assert inside(*SMALL) == (0, f"{MODEL}: already there; 0.0 MB in {folder}\n", "")
    sorted(folder.glob("*.parquet"))[1].unlink()
    assert "2/3" in inside("embed", "--list")[1]
    assert inside(*SMALL)[1].startswith(f"{MODEL}: 16 images in ")


@pytest.mark.parametrize("protocol", ["corrected", "as_published"])
@pytest.mark.parametrize("chapter", ["02", "03", "04", "05", "06", "07"])
def test_embed_builds_the_cohort_of_each_chapter(inside, monkeypatch, chapter, protocol):
    from cxrlib.protocol import protocol_of

    asked = []

    def study(data, n_images, seed, options, **wanted):
        asked.append((data, seed, options, wanted))
        raise ValueError("seen")

    monkeypatch.setattr(cohorts, "study", study)
    (path,) = (ROOT / "chapters").glob(f"{chapter}_*.py")
    call = re.search(r"^(?:cohort|test) = (cohorts\.study\([^)]*\))", path.read_text(), re.M)[1]
    chosen, options = protocol_of(protocol), {"max_broken": 0.1}
    data = "nih-6x200" if chapter == "03" else "nih"
    known = {"cohorts": cohorts, "chosen": chosen, "prepared": chosen.preprocessing}
    known["how"] = {"preprocessing": chosen.preprocessing}
    known |= {"data": data, "balanced": data, "n_images": 4000, "seed": 7, "options": options}
    with pytest.raises(ValueError, match="seen"):
        eval(call, known)
    arguments = ("--data", data, "--seed", "7", "--options", str(options), "--protocol", protocol)
    assert inside("embed", *arguments)[::2] == (1, "cxrbook: seen\n")
    assert asked[0] == asked[1]


def test_embed_takes_the_members_of_an_ensemble_and_says_the_error_of_a_precision(
    inside, tmp_path, monkeypatch
):
    names = (MODEL, "phantom-vit")
    pair = Ensemble(MODEL, tuple(models.load_model(name, precision="bfloat16") for name in names))
    monkeypatch.setattr(models, "load_model", lambda *_, **__: pair)
    lines = inside(*SMALL, "--precision", "bfloat16")[1].splitlines()
    assert [line.split(":")[0] for line in lines[::2]] == [f"{MODEL} (1 of 2)", f"{MODEL} (2 of 2)"]
    for line, model in zip(lines[1::2], pair.members, strict=True):
        found = load(store_folder(cohorts.load("phantom", n_images=40), model))
        error = found.manifest["precision_error"]
        assert line == (
            f"    bfloat16 is off float32 by {error['mean']:.1g} of the length of an embedding, "
            f"at most {error['largest']:.1g}, on 32 images"
        )


@pytest.fixture
def spoilt(monkeypatch):
    """A phantom of 40 images; reading the one at position 20 raises what is put into the list."""
    cohort, raised = cohorts.load("phantom", n_images=40), []

    def images(positions):
        if raised and 20 in positions:
            raise raised[0]
        return cohort.images(positions)

    monkeypatch.setattr(cohorts, "study", lambda *_, **__: replace(cohort, images=images))
    return cohort.table["image_id"][20], raised


def test_embed_names_images_without_embedding(inside, spoilt):
    image, raised = spoilt
    raised.append(ValueError("cut off"))
    code, out, _ = inside(*SMALL)
    assert code == 0
    assert out.splitlines()[1] == f"    images without an embedding: 1 ({image}: cut off)"


def test_embed_interrupted_keeps_what_was_done(inside, spoilt, tmp_path):
    image, raised = spoilt
    raised.append(KeyboardInterrupt())
    code, out, err = inside(*SMALL)
    assert (code, out) == (130, "")
    assert err == (
        "cxrbook: interrupted; what was done is kept, and the same command goes on from there\n"
    )
    (manifest,) = tmp_path.glob(f"embeddings/*/{MANIFEST}")
    done = len(load(manifest.parent).present())
    ids = np.sort(cohorts.load("phantom", n_images=40).table["image_id"].to_numpy(str))
    assert done == np.searchsorted(ids, image) // 16
    raised.clear()
    assert inside(*SMALL)[1].startswith(f"{MODEL}: {40 - 16 * done} images in ")


def test_embed_verify_finds_a_flipped_byte(inside, tmp_path):
    inside(*SMALL)
    for what in ("--list", "--verify"):
        code, out, err = inside("embed", what)
        assert (code, err) == (0, "")
        (row,) = out.splitlines()[1:]
        assert row.split()[:6] == ["phantom", MODEL, "float32", "float32", "40", "3/3"]
    shard = sorted(tmp_path.glob("embeddings/*/*.parquet"))[1]
    data = bytearray(shard.read_bytes())
    data[200] ^= 1
    shard.write_bytes(data)
    assert inside("embed", "--list")[0] == 0
    code, out, err = inside("embed", "--verify")
    assert (code, err) == (1, "cxrbook: damaged stores: 1, see above\n")
    assert f"{shard} is damaged" in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--options", "split"], 2, "expected a dictionary such as"),
        (["--options", "{'splits': 'all'}"], 1, "has no option 'splits'"),
        (["--models", "phantom-resnets"], 1, "did you mean 'phantom-resnet'"),
        (["--data", "phantoms"], 1, "did you mean 'phantom'"),
        (["--data", "nih-metadata"], 1, "is metadata only"),
        (["--data", "nih"], 1, "Set CXRBOOK_DATA"),
        (["--device", "tpu"], 1, "torch cannot use it here"),
    ],
)
def test_embed_errors_are_one_line(inside, arguments, code, words):
    found, out, err = inside(*SMALL, *arguments)
    assert (found, out) == (code, "")
    assert err.count("\n") == 1 and err.startswith("cxrbook: ") and words in err


def test_embed_says_which_folder_cannot_be_written(inside, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CXRBOOK_CACHE", str(tmp_path / "file" / "cache"))
    code, out, err = inside(*SMALL)
    assert (code, out) == (1, "")
    assert re.fullmatch(
        r"cxrbook: embeddings cannot be kept in .* set CXRBOOK_CACHE to one .*\n", err
    )
