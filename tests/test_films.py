"""Films from disk: every format to grey, broken ones found before they are used."""

import hashlib
import os

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from cxrlib.cohorts import films
from cxrlib.cohorts.files import DataError

GREY = (np.add.outer(np.arange(40), 2 * np.arange(50)) % 256).astype(np.uint8)


def png(path, mode="L"):
    image = Image.fromarray(GREY)
    if mode == "RGBA":
        image = Image.merge("RGBA", [image, image, image, Image.new("L", image.size, 255)])
    image.save(path)
    return path


def dicom(path, pixels, photometric="MONOCHROME2", **elements):
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = pydicom.uid.generate_uid()
    data.SOPClassUID = SecondaryCaptureImageStorage
    for name, value in elements.items():
        setattr(data, name, value)
    if pixels is not None:
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, photometric
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
        data.PixelRepresentation, data.PixelData = 0, pixels.astype("<u2").tobytes()
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_png_to_grey(tmp_path, mode):
    assert np.array_equal(films.read(png(tmp_path / "a.png", mode)), GREY)


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 100 + 7).save(tmp_path / "a.png")
    expected = np.round((GREY - 0.0) / GREY.max() * 255)
    assert np.abs(films.read(tmp_path / "a.png") - expected).max() <= 1


def test_dicom_window_and_inversion(tmp_path):
    ramp = np.tile(np.arange(0, 4096, 64), (32, 1))
    plain = films.read(dicom(tmp_path / "a.dcm", ramp))
    assert (plain[0, 0], plain[0, -1]) == (0, 255) and np.all(np.diff(plain[0].astype(int)) > 0)
    inverted = films.read(dicom(tmp_path / "b.dcm", ramp, "MONOCHROME1"))
    assert np.array_equal(inverted, 255 - plain)
    window = {"WindowCenter": 2048, "WindowWidth": 1024, "VOILUTFunction": "LINEAR"}
    seen = films.read(dicom(tmp_path / "c.dcm", ramp, **window))[0]
    # DICOM PS3.3 C.11.2.1.2: black below centre - width/2, white above centre + width/2
    values = ramp[0]
    assert np.all(seen[values <= 2048 - 512] == 0) and np.all(seen[values > 2048 + 511] == 255)
    assert np.all(np.diff(seen[(values > 1600) & (values < 2500)].astype(int)) > 0)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: p.write_bytes(b"no image at all"), "no image"),
        (lambda p: p.write_bytes(png(p).read_bytes()[:-60]), "damaged or cut off"),
        (lambda p: None, "No such file"),
    ],
)
def test_broken_files_in_one_line(tmp_path, make, words):
    path = tmp_path / "film.png"
    make(path)
    with pytest.raises(DataError, match=words) as caught:
        films.read(path)
    assert str(caught.value).startswith("film.png: ") and "\n" not in str(caught.value)


def test_a_truncated_jpeg(tmp_path):
    path = tmp_path / "film.jpg"
    Image.fromarray(GREY).save(path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"film\.jpg: damaged or cut off"):
        films.read(path)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda p: p.write_bytes(b"x" * 500), "no DICOM file"),
        (lambda p: dicom(p, None), "without pixel data"),
        (lambda p: p.write_bytes(dicom(p, GREY).read_bytes()[:-900]), "cannot be decoded"),
    ],
)
def test_broken_dicoms_in_one_line(tmp_path, make, words):
    path = tmp_path / "film.dcm"
    make(path)
    with pytest.raises(DataError, match=words):
        films.read(path)


def folder(tmp_path):
    root = tmp_path / "root"
    (root / "images").mkdir(parents=True)
    names = [f"images/{k}.png" for k in range(6)]
    for k, name in enumerate(names):
        Image.fromarray(np.roll(GREY, 7 * k, axis=1)).save(root / name)
    (root / names[1]).write_bytes(b"")
    (root / names[4]).unlink()
    return root, names


def test_check_says_what_is_in_each_film(tmp_path):
    root, names = folder(tmp_path)
    found = films.check(root, names, tmp_path / "keep.parquet")
    assert list(found["file"]) == names
    assert list(found["problem"] != "") == [False, True, False, False, True, False]
    digest = hashlib.sha256((root / names[0]).read_bytes()).hexdigest()
    assert found["sha256"][0] == digest
    assert (found["height"][0], found["width"][0]) == GREY.shape
    assert found["phash"].str.len().tolist() == [16, 0, 16, 16, 0, 16]


def test_only_changed_films_are_read_again(tmp_path, monkeypatch):
    root, names = folder(tmp_path)
    keep = tmp_path / "keep.parquet"
    read, real = [], films._examine
    monkeypatch.setattr(films, "_examine", lambda r, f: read.append(f) or real(r, f))
    films.check(root, names, keep)
    assert sorted(read) == names
    read.clear()
    png(root / names[1])  # mended
    status = (root / names[2]).stat()
    os.utime(root / names[2], ns=(status.st_atime_ns, status.st_mtime_ns + 10))  # touched
    again = films.check(root, names[::-1], keep)
    assert sorted(read) == [names[1], names[2], names[4]]  # the last is still missing
    assert list(again["file"]) == names[::-1] and (again["problem"] != "").sum() == 1


def test_an_interrupted_check_goes_on(tmp_path, monkeypatch):
    root, names = folder(tmp_path)
    keep = tmp_path / "keep.parquet"
    monkeypatch.setattr(films, "CHUNK", 2)
    read, real = [], films._examine

    def stopped(r, f):
        read.append(f)
        if f == names[4]:
            raise KeyboardInterrupt
        return real(r, f)

    monkeypatch.setattr(films, "_examine", stopped)
    with pytest.raises(KeyboardInterrupt):
        films.check(root, names, keep)
    read.clear()
    monkeypatch.setattr(films, "_examine", lambda r, f: read.append(f) or real(r, f))
    films.check(root, names, keep)
    assert sorted(read) == [names[1], *names[4:]]  # the first is broken


def test_what_an_older_reading_found_is_not_kept(tmp_path, monkeypatch):
    root, names = folder(tmp_path)
    films.check(root, names, tmp_path / "keep.parquet")
    old = pd.read_parquet(tmp_path / "keep.parquet").drop(columns=["reading", "note"])
    old.assign(phash="old").to_parquet(tmp_path / "keep.parquet")
    again = films.check(root, names, tmp_path / "keep.parquet")
    assert "old" not in set(again["phash"]) and list(again["note"]) == [""] * 6


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "film.png")
    with pytest.raises(DataError, match=r"film\.png: no regular file"):
        films.read(tmp_path / "film.png")


def test_a_few_broken_films_are_left_out_many_are_refused(tmp_path):
    root, names = folder(tmp_path)
    found = films.check(root, names, tmp_path / "keep.parquet")
    assert list(films.sound(found, "here", 0.4)) == [True, False, True, True, False, True]
    with pytest.raises(DataError, match=r"here: 2 of 6 films .* more than the 30%"):
        films.sound(found, "here", 0.3)


def test_a_film_that_leads_out_is_not_read(tmp_path):
    root, _ = folder(tmp_path)
    png(tmp_path / "secret.png")
    (root / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    found = films.check(root, ["images/link.png"], tmp_path / "keep.parquet")
    assert "leads out" in found["problem"][0] and found["sha256"][0] == ""
    with pytest.raises(DataError, match="leads out"):
        films.reader(root, ["../secret.png"])([0])
    with pytest.raises(DataError, match="leads out"):
        films.check(root, ["../secret.png"], tmp_path / "keep.parquet")


def test_films_come_in_the_order_asked_for(tmp_path):
    root, names = folder(tmp_path)
    images = films.reader(root, names)([5, 0])
    assert np.array_equal(images[1], GREY)
    assert np.array_equal(images[0], np.roll(GREY, 35, axis=1))
    halved = films.reader(root, names, lambda film: film[::2])([0])
    assert np.array_equal(halved[0], GREY[::2])
