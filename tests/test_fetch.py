"""cxrbook fetch, against a server on this machine that misbehaves as servers do."""

import argparse
import copy
import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cxrlib.book import fetch
from cxrlib.cli import app
from cxrlib.cohorts import files
from cxrlib.cohorts import nih as nih_cohort
from cxrlib.core import download
from cxrlib.core.errors import BookError
from cxrlib.models import registry
from tests.conftest import ROOT, environment

DATA = bytes(range(256)) * 8_000  # 2 MB
HASH = hashlib.sha256(DATA).hexdigest()
OTHER = b"x" * len(DATA)


class Web:
    """A server; ``pages`` are functions of a request by path, ``asked`` what was asked for."""

    def __init__(self):
        self.pages, self.asked = {}, []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                web.asked.append((self.path, self.headers.get("Range")))
                with suppress(ConnectionError):  # of those who have seen enough
                    web.pages[self.path](self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.root = f"http://127.0.0.1:{self.server.server_port}"

    def add(self, path, page):
        self.pages[path] = page
        return self.root + path


def answer(request, content=b"", code=200, length=None, **headers):
    """Send a content, or as much of it as ``send`` says."""
    request.send_response(code)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    if length != "none":
        request.send_header("Content-Length", str(len(content) if length is None else length))
    request.end_headers()
    request.wfile.write(content)


def file(content=DATA, tag='"1"', ranges=True, cuts=0, at=None):
    """A page with a file: honest, or cut so many times at half of what is left, or at a place."""
    left = [cuts]

    def page(request):
        start = 0
        asked = request.headers.get("Range")
        same = request.headers.get("If-Range", tag) == tag
        if asked and ranges and same:
            start = int(re.fullmatch(r"bytes=(\d+)-\d*", asked)[1])
            if start >= len(content):
                extra = {"Content_Range": f"bytes */{len(content)}"}
                return answer(request, code=416, **extra)
        headers = {"ETag": tag} if tag else {}
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        rest = content[start:]
        sent = rest
        if left[0]:
            left[0] -= 1
            sent = rest[: at or len(rest) // 2]
            request.close_connection = True
        answer(request, sent, 206 if start else 200, len(rest), **headers)

    return page


@pytest.fixture(scope="module")
def web():
    server = Web()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch, web):
    monkeypatch.setattr(download, "BACKOFF", 0)
    web.pages.clear()
    web.asked.clear()


def refusal(call, *args, **more):
    with pytest.raises(BookError) as raised:
        call(*args, **more)
    text = str(raised.value)
    assert "\n" not in text and len(text) < 400, text
    return text


def nothing_of(path):
    """Nothing under the final name; what is there of it has another."""
    return not path.exists() and {p.name for p in path.parent.iterdir()} <= {
        path.name + download.PART,
        path.name + download.MARK,
    }


def test_a_file_comes_whole_with_its_hash_through_a_redirect(web, tmp_path):
    web.add("/real", file())
    url = web.add("/link", lambda r: answer(r, code=302, Location="/real"))
    path = tmp_path / "deep" / "film.bin"
    hashes = {"sha256": HASH.upper(), "md5": hashlib.md5(DATA).hexdigest()}
    assert download.download(url, path, len(DATA), hashes) == HASH
    assert path.read_bytes() == DATA and [p.name for p in path.parent.iterdir()] == ["film.bin"]


@pytest.mark.parametrize("tag", ['"1"', 'W/"1"', ""], ids=["strong", "weak", "none"])
def test_a_cut_connection_goes_on(web, tmp_path, tag):
    """Where it ended, if the server tells versions apart; else from the beginning."""
    url = web.add("/cut", file(cuts=3, tag=tag))
    assert download.download(url, tmp_path / "f") == HASH
    assert (tmp_path / "f").read_bytes() == DATA
    went_on = [asked for _, asked in web.asked if asked]
    assert len(web.asked) == 4 and len(went_on) == (3 if tag == '"1"' else 0)


def test_without_versions_a_known_hash_lets_it_go_on(web, tmp_path):
    url = web.add("/cut", file(cuts=1, tag=""))
    assert download.download(url, tmp_path / "f", hashes={"sha256": HASH}) == HASH
    assert web.asked[1][1] == f"bytes={len(DATA) // 2}-"


@pytest.mark.parametrize("known", [{}, {"sha256": HASH}])
def test_another_version_is_not_joined_to_the_first_half_of_the_old_one(web, tmp_path, known):
    (tmp_path / "f.part").write_bytes(OTHER[:1000])
    (tmp_path / "f.part-of").write_text('"0"')
    assert download.download(web.add("/new", file()), tmp_path / "f", hashes=known) == HASH
    assert web.asked == [("/new", "bytes=1000-")]


def test_a_server_that_knows_no_ranges_sends_it_all_again(web, tmp_path):
    url = web.add("/f", file(ranges=False, cuts=1))
    assert download.download(url, tmp_path / "f") == HASH
    assert len(web.asked) == 2 and (tmp_path / "f").read_bytes() == DATA


def test_a_part_that_is_whole_is_taken(web, tmp_path):
    (tmp_path / "f.part").write_bytes(DATA)
    (tmp_path / "f.part-of").write_text('"1"')
    assert download.download(web.add("/f", file()), tmp_path / "f") == HASH


def test_a_part_that_is_too_long_is_thrown_away(web, tmp_path):
    (tmp_path / "f.part").write_bytes(DATA + b"more")
    (tmp_path / "f.part-of").write_text('"1"')
    assert download.download(web.add("/f", file()), tmp_path / "f") == HASH


def test_it_gives_up_where_nothing_comes_and_keeps_what_came(web, tmp_path):
    url = web.add("/f", file(cuts=99, at=1000))
    text = refusal(download.download, url, tmp_path / "f")
    assert "ended early" in text and "5,000 bytes are kept" in text
    assert len(web.asked) == download.TRIES and nothing_of(tmp_path / "f")
    web.add("/f", file())
    assert download.download(url, tmp_path / "f") == HASH
    assert web.asked[-1][1] == "bytes=5000-"


LIES = {
    "too long": (lambda r: answer(r, DATA, length=len(DATA) + 7), "ended early"),
    "too short": (lambda r: answer(r, DATA, length=len(DATA) - 7), "SHA-256"),
    "another": (file(OTHER), "another file; nothing was kept"),
    "log-in": (lambda r: answer(r, b"<html>log in", Content_Type="text/html"), "perhaps a log-in"),
    "disguised": (lambda r: answer(r, b" <!DOCTYPE HTML>"), "perhaps a log-in"),
    "forbidden": (lambda r: answer(r, code=403), "asks for a log-in (HTTP 403)"),
    "gone": (lambda r: answer(r, code=404), "has no such file (HTTP 404)"),
    "broken": (lambda r: answer(r, code=500), "fails (HTTP 500)"),
    "busy": (lambda r: answer(r, code=429, Retry_After="0"), "asks to wait (HTTP 429)"),
    "loop": (lambda r: answer(r, code=302, Location="/bad"), "without end"),
    "elsewhere": (lambda r: answer(r, code=302, Location="file:///etc/passwd"), "no address"),
    "compressed": (lambda r: answer(r, DATA, Content_Encoding="gzip"), "compressed"),
    "silent": (lambda r: setattr(r, "close_connection", True), "cannot be reached"),
}


@pytest.mark.parametrize("kind", LIES)
def test_whatever_goes_wrong_leaves_no_file_and_says_one_line(web, tmp_path, kind):
    page, expected = LIES[kind]
    url = web.add("/bad", page)
    text = refusal(download.download, url, tmp_path / "f", hashes={"sha256": HASH})
    assert text.startswith(url) and expected in text
    assert nothing_of(tmp_path / "f")


def test_another_size_than_known_is_refused_before_it_is_read(web, tmp_path):
    text = refusal(download.download, web.add("/f", file()), tmp_path / "f", 1234)
    assert f"{len(DATA):,} bytes in place of 1,234" in text and list(tmp_path.iterdir()) == []


def test_a_known_size_is_asked_for_where_the_server_says_none(web, tmp_path):
    url = web.add("/f", lambda r: answer(r, DATA[:-1], length="none"))
    assert "ended early" in refusal(download.download, url, tmp_path / "f", len(DATA))
    assert nothing_of(tmp_path / "f")


def test_a_slow_server_is_not_waited_for_without_end(web, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", (1, 0.05))
    done = threading.Event()
    url = web.add("/slow", lambda r: done.wait(10))
    text = refusal(download.download, url, tmp_path / "f")
    done.set()
    assert "no answer in" in text and nothing_of(tmp_path / "f")


def test_nobody_there_and_no_such_name(tmp_path):
    for url in ("http://127.0.0.1:9/f", "nothing"):
        text = refusal(download.download, url, tmp_path / "f")
        assert text.startswith(f"{url}: ") and nothing_of(tmp_path / "f")


def test_a_busy_server_gets_the_time_that_it_asks_for(web, tmp_path):
    left = [1]

    def page(request):
        if left:
            left.clear()
            return answer(request, code=429, Retry_After="1")
        return file()(request)

    start = time.monotonic()
    assert download.download(web.add("/busy", page), tmp_path / "f") == HASH
    assert time.monotonic() - start >= 1


def test_no_room_is_said_before_anything_is_written(web, tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    text = refusal(download.download, web.add("/f", file()), tmp_path / "f")
    assert "needs 2 MB" in text and "1 MB free" in text and list(tmp_path.iterdir()) == []


def test_the_hash_that_hugging_face_announces_is_checked(web, tmp_path):
    web.add("/cdn", file(OTHER))
    headers = {"Location": "/cdn", "X_Linked_ETag": f'"{HASH}"'}
    url = web.add("/hub", lambda r: answer(r, code=302, **headers))
    assert f"in place of {HASH}" in refusal(download.download, url, tmp_path / "f")
    web.add("/cdn", file())
    assert download.download(url, tmp_path / "f") == HASH


def test_headers_read_nothing_of_the_file(web):
    url = web.add("/f", file(DATA * 50))
    assert download.headers(url).size == len(DATA) * 50
    assert web.asked == [("/f", "bytes=0-0")]
    assert "HTTP 404" in refusal(download.headers, web.add("/g", lambda r: answer(r, code=404)))


# Archives


def tar_of(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                info.size = len(content)
            archive.addfile(info, content and io.BytesIO(content))
    return out.getvalue()


def zip_of(entries):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize("pack", [tar_of, zip_of])
@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "..\\out"])
def test_no_archive_writes_outside_its_folder(tmp_path, pack, name):
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.bin").write_bytes(pack({name: b"bad"}))
    text = refusal(download.unpack, root / "a.bin", lambda inner: root / inner)
    assert "out of its folder" in text and not list(tmp_path.rglob("out"))


def test_links_in_an_archive_are_passed_over(tmp_path):
    (tmp_path / "a.tgz").write_bytes(tar_of({"link": None, "file": b"1"}))
    download.unpack(tmp_path / "a.tgz", lambda name: tmp_path / name)
    assert not (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == b"1"


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"x" * 100])
@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_a_damaged_archive_leaves_whole_files_only(tmp_path, pack, damage):
    films = {f"images/{i}.png": os.urandom(50_000) for i in range(5)}
    (tmp_path / "a").write_bytes(damage(pack(films)))
    text = refusal(download.unpack, tmp_path / "a", lambda name: tmp_path / name)
    assert "damaged" in text
    for path in (tmp_path / "images").glob("*"):
        assert path.read_bytes() == films[f"images/{path.name}"]


# The command


@pytest.fixture
def places(tmp_path, monkeypatch):
    data, models = tmp_path / "data", tmp_path / "models"
    data.mkdir()
    models.mkdir()
    monkeypatch.setenv("CXRBOOK_DATA", str(data))
    monkeypatch.setenv("CXRBOOK_CHECKPOINTS", str(models))
    return SimpleNamespace(data=data, models=models)


@pytest.fixture
def catalogue(monkeypatch):
    """A copy of the table whose addresses a test may change."""
    own = copy.deepcopy(fetch.CATALOGUE)
    monkeypatch.setattr(fetch, "CATALOGUE", own)
    return own


def run(*args):
    app(["fetch", *args], standalone_mode=False)


FILMS = [f"0000000{i}_00{j}.png" for i in range(1, 5) for j in range(2)]  # 4 in each archive


@pytest.fixture
def nih(web, catalogue, places, monkeypatch):
    """A release of eight films in two archives."""
    entry = catalogue["data"]["nih-cxr14"]
    for one in entry["files"]:
        one["url"] = web.add(f"/{one['name']}", file(one["name"].encode()))
    content = {name: name.encode() * 1000 for name in FILMS}
    entry["archives"] = entry["archives"][:2]
    for number, one in enumerate(entry["archives"]):
        films = FILMS[4 * number : 4 * number + 4]
        packed = tar_of({f"images/{film}": content[film] for film in films})
        one |= {"size": len(packed), "md5": hashlib.md5(packed).hexdigest()}
        one["url"] = web.add(f"/images{number + 1}", file(packed))
    monkeypatch.setattr(fetch, "_released", lambda: FILMS)
    monkeypatch.setattr(nih_cohort, "archive_of", lambda films: [1 + (f > FILMS[3]) for f in films])
    monkeypatch.setattr(fetch, "_drawn", lambda seed, folder: frozenset(FILMS[2:5]))
    root = places.data / "nih-cxr14"
    return SimpleNamespace(root=root, content=content, entry=entry)


def films_of(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*.png")}


def test_a_part_of_nih_lands_where_chapters_look_and_a_second_run_asks_nothing(web, nih, capsys):
    run("nih", "--part", "1")
    said = capsys.readouterr().out
    assert "name the NIH Clinical Center" in said.split("images_001.tar.gz")[0]
    expected = {f"images_001/images/{f}": nih.content[f] for f in FILMS[:4]}
    assert films_of(nih.root) == expected
    assert {v: nih.content[k] for k, v in nih_cohort.films_in(nih.root).items()} == expected
    assert {p.name for p in nih.root.iterdir() if p.is_file()} >= {
        *(one["name"] for one in nih.entry["files"]),
        "TERMS.txt",
        "SHA256SUMS",
    }
    assert not list(nih.root.glob("*.tar.gz")) and not list(nih.root.rglob("*.part*"))
    terms = (nih.root / "TERMS.txt").read_text()
    assert "Wang et al. 2017" in terms and "No restrictions on use" in terms
    web.asked.clear()
    run("nih", "--part", "1")
    assert web.asked == [] and "there already" in capsys.readouterr().out


def test_without_a_part_nih_gives_tables_and_says_how_to_get_films(nih, capsys):
    run("nih-cxr14")
    assert films_of(nih.root) == {} and "--part all" in capsys.readouterr().out


def test_a_draw_keeps_its_films_only_and_the_parts_add_the_rest_once(web, nih):
    run("nih", "--draw", "6x200")
    assert set(films_of(nih.root)) == {f"images/{film}" for film in FILMS[2:5]}
    web.asked.clear()
    run("nih", "--part", "all", "--keep-archives")
    found = films_of(nih.root)
    assert sorted(name.rpartition("/")[2] for name in found) == FILMS
    assert all(nih.content[name.rpartition("/")[2]] == film for name, film in found.items())
    assert [path for path, _ in web.asked] == ["/images1", "/images2"]
    (nih.root / found.popitem()[0]).unlink()
    web.asked.clear()
    run("nih", "--part", "all")
    assert web.asked == [] and len(films_of(nih.root)) == len(FILMS)
    assert len(list(nih.root.glob("*.tar.gz"))) == 2  # kept ones stay kept


def test_an_archive_whose_unpacking_was_cut_goes_on_without_the_network(web, nih, monkeypatch):
    def full(content, target):
        if target.name == FILMS[2]:
            raise OSError(28, "No space left on device")
        one(content, target)

    one = download._one
    monkeypatch.setattr(download, "_one", full)
    assert "No space left" in refusal(run, "nih", "--part", "1")
    assert len(films_of(nih.root)) == 2 and (nih.root / "images_001.tar.gz").is_file()
    monkeypatch.setattr(download, "_one", one)
    web.asked.clear()
    run("nih", "--part", "1")
    assert web.asked == [] and len(films_of(nih.root)) == 4


def test_an_archive_with_other_films_is_not_taken_for_the_part(web, nih):
    packed = tar_of({f"images/{film}": b"1" for film in FILMS[:3]})
    one = nih.entry["archives"][0]
    one |= {"size": len(packed), "md5": hashlib.md5(packed).hexdigest()}
    web.add("/images1", file(packed))
    assert "holds 3 of the 4 files" in refusal(run, "nih", "--part", "1")


def test_room_for_archive_and_films_is_asked_for_at_the_start(web, nih, monkeypatch):
    free = nih.entry["archives"][0]["size"] * 1.5
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert refusal(run, "nih", "--part", "1").startswith("nih-cxr14: needs")
    assert web.asked == []


def test_unknown_hashes_are_recorded_and_hold_from_then_on(web, catalogue, places, capsys):
    one = catalogue["data"]["neatx"]["files"][0]
    one["url"] = web.add("/neatx", file(b"Image Index,Drain\na.png,1\n"))
    run("neatx")
    assert len(nih_cohort.neatx(places.data)) == 1  # where the cohort looks
    path = places.data / "neatx" / one["name"]
    value = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (path.parent / "SHA256SUMS").read_text() == f"{value}  {one['name']}\n"
    path.write_bytes(b"changed")
    assert f"in place of {value}" in refusal(run, "neatx")
    path.unlink()
    web.add("/neatx", file(b"another version\n"))
    text = refusal(run, "neatx")
    assert f"in place of {value}" in text and "remove its line" in text and not path.exists()
    (path.parent / "SHA256SUMS").unlink()
    run("neatx")
    assert path.read_bytes() == b"another version\n"


def test_an_older_table_of_nih_that_is_there_stays_the_only_one(web, nih):
    nih.root.mkdir()
    (nih.root / "Data_Entry_2017.csv").write_text("older")
    run("nih")
    assert "/Data_Entry_2017_v2020.csv" not in dict(web.asked)


def test_a_no_op_leaves_the_folder_as_it_was(nih):
    run("nih", "--part", "1")
    before = files.stamp(nih.root)
    run("nih", "--part", "1")
    assert files.stamp(nih.root) == before


def test_an_archive_that_came_damaged_can_be_fetched_again(web, catalogue, places):
    """Its server told a length that is too short, and no hash is known."""
    one = catalogue["data"]["hannover"]["files"][0]
    packed = zip_of({"r/data.csv": b"patient_id\n"})
    one["url"] = web.add("/zip", lambda r: answer(r, packed, length=len(packed) - 9))
    assert "damaged" in refusal(run, "hannover")
    (places.data / "hannover" / one["name"]).unlink()
    web.add("/zip", file(packed))
    run("hannover")
    assert (places.data / "hannover" / "data.csv").is_file()


def test_hannover_is_laid_out_as_in_its_repository(web, catalogue, places):
    one = catalogue["data"]["hannover"]["files"][0]
    inner = {"data.csv": b"patient_id\n", "png/a.png": b"1", "png/b.png": b"2", "README.md": b"r"}
    packed = zip_of({f"repository-ad7ab/{n}": c for n, c in (inner | {"setup.py": b""}).items()})
    one["url"] = web.add("/zip", lambda r: answer(r, packed, length="none"))  # as GitHub does
    run("hannover")
    root = places.data / "hannover"
    found = {
        p.relative_to(root).as_posix(): p.read_bytes()
        for p in root.rglob("*")
        if p.is_file() and p.name not in ("TERMS.txt", "SHA256SUMS")
    }
    assert found == inner and "CC BY 3.0" in (root / "TERMS.txt").read_text()
    web.asked.clear()
    run("hannover")
    assert web.asked == []
    (root / "png/b.png").unlink()
    run("hannover")
    assert (root / "png/b.png").read_bytes() == b"2"


def saved(value):
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def test_a_model_comes_with_its_vocabulary_and_is_found(web, catalogue, places, capsys):
    entry = catalogue["models"]["medclip_vit"]
    entry["weights"] = web.add(
        "/m.zip", file(zip_of({"a/pytorch_model.bin": saved({"w": torch.ones(2)}), "b": b"no"}))
    )
    catalogue["shared"]["Bio_ClinicalBERT"] = web.add("/vocab.txt", file(b"[PAD]\n"))
    run("medclip_vit")
    folder = places.models / "medclip_vit"
    assert {p.name for p in folder.iterdir()} == {
        *("pytorch_model.bin", "vocab.txt", "TERMS.txt", "SHA256SUMS")
    }
    assert "models=medclip_vit" in capsys.readouterr().out
    web.asked.clear()
    run("medclip_vit")
    assert web.asked == []


def test_a_checkpoint_that_holds_more_than_tensors_is_converted(web, catalogue, places):
    content = saved({"state_dict": {"w": torch.ones(2)}, "config": argparse.Namespace(lr=0.1)})
    catalogue["models"]["cxr_clip_rn50"]["weights"] = web.add("/r50_mcc.tar", file(content))
    catalogue["shared"]["Bio_ClinicalBERT"] = web.add("/vocab.txt", file(b"[PAD]\n"))
    run("cxr_clip_rn50")
    folder = places.models / "cxr_clip_rn50"
    assert (folder / "r50_mcc.tar").is_file() and (folder / "r50_mcc.safetensors").is_file()
    assert "r50_mcc.safetensors" in (folder / "SHA256SUMS").read_text()
    web.asked.clear()
    run("cxr_clip_rn50")
    assert web.asked == []


def test_what_is_shared_on_a_page_for_people_is_said_and_taken_when_it_is_there(
    web, catalogue, places, capsys
):
    catalogue["shared"]["Bio_ClinicalBERT"] = web.add("/vocab.txt", file(b"[PAD]\n"))
    page = catalogue["models"]["gloria"]["by_hand"]["weights"]
    text = refusal(run, "gloria")
    folder = places.models / "gloria"
    assert page in text and str(folder) in text and (folder / "vocab.txt").is_file()
    torch.save({"w": torch.ones(1)}, folder / "chexpert_resnet50.ckpt")
    run("gloria")
    assert "chexpert_resnet50.ckpt" in (folder / "SHA256SUMS").read_text()


def test_a_dry_run_asks_nothing_and_writes_nothing(web, nih, places, capsys):
    run("nih", "neatx", "biovil", "--dry-run")
    said = capsys.readouterr().out
    assert "licence: MIT" in said and "zenodo.org" in said and "to download" in said
    assert web.asked == [] and not any(places.data.iterdir()) and not any(places.models.iterdir())


def test_without_a_folder_it_says_which_variable(monkeypatch):
    for variable, name in (("CXRBOOK_DATA", "neatx"), ("CXRBOOK_CHECKPOINTS", "biovil")):
        monkeypatch.delenv(variable, raising=False)
        assert f"Set {variable}" in refusal(run, name)
        monkeypatch.setenv(variable, "/nowhere/at/all")
        assert "no such folder" in refusal(run, name)


def test_a_folder_that_cannot_be_written_is_named(monkeypatch):
    monkeypatch.setenv("CXRBOOK_DATA", "/proc")
    assert refusal(run, "neatx") == "/proc/neatx: No such file or directory"
    with pytest.raises(BookError, match="name it"):
        run("--part", "1")


@pytest.mark.parametrize(
    ("name", "said"),
    [("mimic", "credentialed"), ("mimic-iv", "course"), ("chexpert", "agreement"), ("own", "own")],
)
def test_what_is_not_open_is_never_fetched(web, places, name, said):
    assert said in refusal(run, name) and not any(places.data.iterdir())


def test_misspelt_things_and_parts(places):
    assert "did you mean 'hannover'" in refusal(run, "hanover")
    for part in ("0", "13", "x", "3-1"):
        assert "from 1 to 12" in refusal(run, "nih", "--part", part)
    assert "neatx has none" in refusal(run, "neatx", "--part", "1")
    assert fetch.parts_of(["2-4", "1,3"]) == [1, 2, 3, 4] and len(fetch.parts_of(["all"])) == 12


def test_check_asks_for_headers_only_and_finds_what_has_moved(web, nih, capsys):
    run("nih", "--check")
    said = capsys.readouterr().out
    assert said.count("ok  ") == 5 and 'seen = "' in said
    assert {asked for _, asked in web.asked} == {"bytes=0-0"} and not nih.root.exists()
    web.add("/test_list.txt", lambda r: answer(r, b"<html>", Content_Type="text/html"))
    web.add("/images2", file(b"smaller"))
    assert "as expected: 2" in refusal(run, "nih", "--check")
    said = capsys.readouterr().out
    assert "a web page in place of test_list.txt" in said and "7 bytes in place of" in said


def test_two_at_a_time_into_one_folder_are_refused(web, nih):
    nih.root.mkdir()
    with fetch._alone(nih.root):
        assert "another process" in refusal(run, "nih")


KILLED = """
import sys
from cxrlib.book import fetch
from cxrlib import cli

fetch.CATALOGUE["data"]["neatx"]["files"][0]["url"] = sys.argv.pop()
cli.main()
"""


def test_a_killed_download_goes_on_where_it_was(web, catalogue, places):
    one = catalogue["data"]["neatx"]["files"][0]
    half, go_on = len(DATA) // 2, threading.Event()

    def stuck(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(DATA)))
        request.send_header("ETag", '"1"')
        request.end_headers()
        request.wfile.write(DATA[:half])
        go_on.wait(20)

    one["url"] = web.add("/neatx", stuck)
    part = places.data / "neatx" / (one["name"] + ".part")
    command = [sys.executable, "-c", KILLED, "fetch", "neatx", one["url"]]
    child = subprocess.Popen(command, env=environment() | os.environ, cwd=ROOT)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (part.is_file() and part.stat().st_size > half / 2):
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    go_on.set()
    kept = part.stat().st_size
    assert kept > half / 2 and not part.with_name(one["name"]).exists()
    web.add("/neatx", file())
    web.asked.clear()
    run("neatx")
    assert part.with_name(one["name"]).read_bytes() == DATA and not part.exists()
    assert web.asked == [("/neatx", f"bytes={kept}-")]


# The table of addresses


def test_every_published_model_has_addresses_that_agree_with_its_card():
    cards = registry.cards()
    assert set(fetch.CATALOGUE["models"]) == set(cards)
    for name, card in cards.items():
        entry = fetch.CATALOGUE["models"][name]
        for part in card["files"]:
            url = entry.get(part["part"]) or entry["by_hand"][part["part"]]
            url = fetch.CATALOGUE["shared"].get(url, url)
            assert url.startswith("https://")
            host = url.split("/")[2]
            assert host in part["source"] or part["source"] in (
                "the same place",
                "the folder linked in the repository's README; several files are an ensemble",
            ), (name, url)
            if url.endswith(".zip"):
                assert url.removeprefix("https://") in part["source"]
            elif "by_hand" not in entry or part["part"] not in entry["by_hand"]:
                assert url.rpartition("/")[2] in part["names"]


def test_all_archives_together_hold_every_film_of_nih(monkeypatch):
    """The first has 4,999 of 1,335 patients."""
    monkeypatch.delenv("CXRBOOK_DATA", raising=False)
    [thing] = fetch.plan(["nih"], fetch.parts_of(["all"]))
    archives = [item for item in thing.items if item.place]
    assert archives[0].note == "4,999 films" and len(archives) == 12
    assert sum(item.wanted for item in archives) == 112_120
    films = np.array(fetch._released())
    first = films[nih_cohort.archive_of(films) == 1]
    assert len({film[:8] for film in first}) == 1335


def test_every_thing_says_its_terms_and_where_its_addresses_are_from():
    for entry in fetch.CATALOGUE["data"].values():
        assert all(entry[key] for key in ("title", "licence", "cite", "page", "source"))
    for kind in ("data", "models"):
        for entry in fetch.CATALOGUE[kind].values():
            assert entry["seen"] == "" or re.match(r"\d{4}-\d{2}-\d{2}, .+", entry["seen"])


WATCHED = """
import sys

tried = []

def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        tried.append((event, args))

sys.addaudithook(watch)
from cxrlib.cli import app

for command in COMMANDS:
    try:
        app(command, standalone_mode=False)
    except Exception as error:
        print("stopped:", command, type(error).__name__)
print("tried:", tried)
"""


def test_no_other_command_touches_the_network(tmp_path):
    """Nor does fetch, before it is told to."""
    (tmp_path / "data").mkdir()
    commands = [
        *(["chapters"], ["models", "--hash"], ["check-data"], ["nih-6x200-list"]),
        *(["fetch"], ["fetch", "nih", "neatx", "--part", "all", "--dry-run"]),
    ]
    variables = environment() | {
        "CXRBOOK_DATA": str(tmp_path / "data"),
        "CXRBOOK_CHECKPOINTS": str(tmp_path),
    }
    for offline in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        variables.pop(offline, None)
    code = WATCHED.replace("COMMANDS", repr(commands))
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "tried: []", done.stdout
    assert done.stdout.count("stopped:") == 1, done.stdout  # check-data finds nothing


def test_only_one_module_of_the_library_speaks_to_the_network():
    web = r"requests|urllib(?!\.parse)|http\.client|httpx|huggingface_hub(?! import constants)"
    pattern = re.compile(rf"^\s*(?:import|from) (?:{web})", re.MULTILINE)
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cxrlib").rglob("*.py")
        if pattern.search(path.read_text())
    }
    assert found == {"cxrlib/core/download.py"}
