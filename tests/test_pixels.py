"""Every kind of pixels to grey, beside an independent decoding: the truth is written by hand."""

import io
import pathlib
import re

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image, TiffImagePlugin
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from cxrlib.cohorts import check_data, films, own, pixels
from cxrlib.cohorts.files import DataError

RAMP = np.tile(np.linspace(0, 4095, 64).astype(int), (32, 1))
COLOURS = np.random.default_rng(0).integers(0, 256, (32, 64, 3))
LUMA = COLOURS @ [0.299, 0.587, 0.114]  # ITU-R BT.601


def grey(values, use=True):
    """The smallest number 0, the largest 255, those not used 0."""
    use = np.broadcast_to(use, values.shape)
    low, high = values[use].min(), values[use].max()
    return np.where(use, (values - low) / (high - low) * 255, 0)


def dicom(px, kind="MONOCHROME2", bits=12, syntax=ExplicitVRLittleEndian, signed=0, **elements):
    """A DICOM file, its bytes of pixels written by hand."""
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    colours = px.ndim == 3 and kind[:4] != "MONO"
    data.SamplesPerPixel, data.PhotometricInterpretation = 3 if colours else 1, kind
    data.Rows, data.Columns = px.shape[:2] if colours else px.shape[-2:]
    if colours:
        data.PlanarConfiguration = elements.get("PlanarConfiguration", 0)
        px = np.moveaxis(px, 2, 0) if data.PlanarConfiguration else px
    data.BitsAllocated = 8 if bits <= 8 else 16
    data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits - 1, signed
    order = "<" if syntax.is_little_endian else ">"
    code = f"{order}{'i' if signed else 'u'}{data.BitsAllocated // 8}"
    data.PixelData = px.astype(code).tobytes()
    data["PixelData"].VR = "OB" if bits <= 8 else "OW"
    for name, value in elements.items():
        setattr(data, name, value)
    out = io.BytesIO()
    data.save_as(out, enforce_file_format=True)
    return out.getvalue()


def table(values, first=0, depth=16, entries=None):
    """A look-up table in a sequence of one item."""
    item = pydicom.Dataset()
    item.LUTDescriptor = [len(values) if entries is None else entries, first, depth]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.LUTData = np.asarray(values, "<u2").tobytes()
    item["LUTData"].VR = "OW"
    return [item]


def window(values, centre, width):
    """PS3.3 C.11.2.1.2.1, from 0 to 1."""
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def palette(colours, first=0, depth=16, code="<u2"):
    """Elements of a palette of n colours (n, 3)."""
    found = {}
    for name, channel in zip(("Red", "Green", "Blue"), np.transpose(colours), strict=True):
        found[f"{name}PaletteColorLookupTableDescriptor"] = [len(channel), first, depth]
        found[f"{name}PaletteColorLookupTableData"] = channel.astype(code).tobytes()
    return found


BENT = np.sqrt(np.arange(4096)) * 1000  # what a look-up table may do
PADDED = np.where(np.arange(64) >= 56, 3, RAMP)
SQUARES = (np.arange(256)[:, None] * [1, 0.5, 0.25]).astype(int)
KINDS = {
    "as it is": (dicom(RAMP), grey(RAMP)),
    "implicit": (dicom(RAMP, syntax=ImplicitVRLittleEndian), grey(RAMP)),
    "big-endian": (dicom(RAMP, syntax=ExplicitVRBigEndian), grey(RAMP)),
    "signed": (dicom(RAMP - 2048, signed=1), grey(RAMP)),
    "8 bits": (dicom(RAMP // 16, bits=8), grey(RAMP // 16)),
    "12 bits below an overlay": (dicom(RAMP | 0xF000), grey(RAMP)),
    "MONOCHROME1": (dicom(RAMP, "MONOCHROME1"), grey(-RAMP)),
    "MONOCHROME1, signed": (dicom(RAMP - 2048, "MONOCHROME1", signed=1), grey(-RAMP)),
    "MONOCHROME1, INVERSE": (
        dicom(RAMP, "MONOCHROME1", PresentationLUTShape="INVERSE"),
        grey(-RAMP),
    ),
    "MONOCHROME2, IDENTITY": (dicom(RAMP, PresentationLUTShape="IDENTITY"), grey(RAMP)),
    # padding
    "padding above": (
        dicom(np.where(PADDED == 3, 65535, PADDED), bits=16, PixelPaddingValue=65535),
        grey(RAMP, PADDED != 3),
    ),
    "padding above the bits stored": (
        dicom(np.where(PADDED == 3, 65535, PADDED // 8), PixelPaddingValue=65535),
        grey(PADDED // 8, PADDED != 3),
    ),
    "padding inside": (dicom(PADDED, PixelPaddingValue=3), grey(PADDED, PADDED != 3)),
    "padding in MONOCHROME1": (
        dicom(PADDED, "MONOCHROME1", PixelPaddingValue=3),
        grey(-PADDED, PADDED != 3),
    ),
    "padding, signed": (
        dicom(
            np.where(PADDED == 3, -2000, PADDED), bits=16, signed=1,
            PixelPaddingValue=-2000, syntax=ImplicitVRLittleEndian,
        ),
        grey(RAMP, PADDED != 3),
    ),
    "padding range": (
        dicom(RAMP, PixelPaddingValue=3000, PixelPaddingRangeLimit=4095),
        grey(RAMP, RAMP < 3000),
    ),
    "padding range downwards": (
        dicom(RAMP, PixelPaddingValue=1000, PixelPaddingRangeLimit=0),
        grey(RAMP, RAMP > 1000),
    ),
    "padding with rescale and window": (
        dicom(
            PADDED, PixelPaddingValue=3, RescaleSlope=2, RescaleIntercept=-100,
            WindowCenter=4000, WindowWidth=3000,
        ),
        grey(window(2 * PADDED - 100, 4000, 3000), PADDED != 3),
    ),
    "padding that is nowhere": (dicom(RAMP, PixelPaddingValue=65535), grey(RAMP)),
    "padding left empty": (dicom(RAMP, PixelPaddingValue=None), grey(RAMP)),
    # modality
    "falling slope": (dicom(RAMP, RescaleSlope=-1, RescaleIntercept=4095), grey(-RAMP)),
    "falling slope with window": (
        dicom(RAMP, RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=1000, WindowWidth=800),
        grey(window(4095 - RAMP, 1000, 800)),
    ),
    "intercept alone with window": (
        dicom(RAMP, RescaleIntercept=-1000, WindowCenter=0, WindowWidth=1000),
        grey(window(RAMP - 1000, 0, 1000)),
    ),
    "slope alone with window": (
        dicom(RAMP, RescaleSlope=0.5, WindowCenter=1000, WindowWidth=500),
        grey(window(RAMP / 2, 1000, 500)),
    ),
    "modality table": (dicom(RAMP, ModalityLUTSequence=table(BENT)), grey(BENT[RAMP])),
    "modality table, 12 bits": (
        dicom(RAMP, ModalityLUTSequence=table(BENT // 16, depth=12)),
        grey((BENT // 16)[RAMP]),
    ),
    "modality table from below 0": (
        dicom(RAMP - 2048, signed=1, ModalityLUTSequence=table(BENT, -2048)),
        grey(BENT[RAMP]),
    ),
    # values of interest
    "VOI table": (dicom(RAMP, VOILUTSequence=table(BENT)), grey(BENT[RAMP])),
    "VOI table before a window": (
        dicom(RAMP, VOILUTSequence=table(BENT), WindowCenter=9, WindowWidth=9),
        grey(BENT[RAMP]),
    ),
    "VOI table of 8 bits": (
        dicom(RAMP, VOILUTSequence=table(BENT // 256, depth=8)),
        grey((BENT // 256)[RAMP]),
    ),
    "VOI table for a part": (
        dicom(RAMP, VOILUTSequence=table(BENT[:1000], 500)),
        grey(BENT[np.clip(RAMP - 500, 0, 999)]),
    ),
    "VOI table after a negative intercept": (
        dicom(
            RAMP, RescaleSlope=1, RescaleIntercept=-1000, VOILUTSequence=table(BENT, -1000)
        ),
        grey(BENT[RAMP]),
    ),
    "VOI table without data, then window": (
        dicom(RAMP, VOILUTSequence=[pydicom.Dataset()], WindowCenter=2000, WindowWidth=900),
        grey(window(RAMP, 2000, 900)),
    ),
    "window": (dicom(RAMP, WindowCenter=2000, WindowWidth=900), grey(window(RAMP, 2000, 900))),
    "first of two windows": (
        dicom(RAMP, WindowCenter=[2000, 40], WindowWidth=[900, 400]),
        grey(window(RAMP, 2000, 900)),
    ),
    "window, function left empty": (
        dicom(RAMP, WindowCenter=2000, WindowWidth=900, VOILUTFunction=""),
        grey(window(RAMP, 2000, 900)),
    ),
    "window, LINEAR_EXACT": (
        dicom(RAMP, WindowCenter=2000, WindowWidth=50, VOILUTFunction="LINEAR_EXACT"),
        grey(np.clip((RAMP - 2000) / 50 + 0.5, 0, 1)),
    ),
    "window, SIGMOID": (
        dicom(RAMP, WindowCenter=2000, WindowWidth=900, VOILUTFunction="SIGMOID"),
        grey(1 / (1 + np.exp(-4 * (RAMP - 2000) / 900))),
    ),
    "window in MONOCHROME1": (
        dicom(RAMP, "MONOCHROME1", WindowCenter=2000, WindowWidth=900),
        grey(-window(RAMP, 2000, 900)),
    ),
    "window left empty": (dicom(RAMP, WindowCenter=None, WindowWidth=None), grey(RAMP)),
    # colours
    "RGB": (dicom(COLOURS, "RGB", 8), LUMA),
    "RGB by planes": (dicom(COLOURS, "RGB", 8, PlanarConfiguration=1), LUMA),
    "RGB of 16 bits": (dicom(COLOURS * 100, "RGB", 16), LUMA * 255 / COLOURS.max()),
    # of YBR, Y is the luma
    "YBR_FULL": (dicom(np.stack([LUMA, LUMA * 0 + 128, LUMA * 0 + 128], 2), "YBR_FULL", 8), LUMA),
    "palette of 16 bits": (
        dicom(RAMP // 16, "PALETTE COLOR", 8, **palette(SQUARES * 257)),
        (SQUARES @ [0.299, 0.587, 0.114])[RAMP // 16],
    ),
    "palette of 8 bits": (
        dicom(RAMP // 16, "PALETTE COLOR", 8, **palette(SQUARES, depth=8, code="u1")),
        (SQUARES @ [0.299, 0.587, 0.114])[RAMP // 16],
    ),
    "palette of 8 bits with 4,096 colours": (
        dicom(
            RAMP, "PALETTE COLOR", **palette(np.repeat(SQUARES, 16, 0), depth=8, code="u1")
        ),
        (SQUARES @ [0.299, 0.587, 0.114])[RAMP // 16],
    ),
    "palette from 100 on": (
        dicom(RAMP // 16, "PALETTE COLOR", 8, **palette(SQUARES[:100] * 257, first=100)),
        (SQUARES @ [0.299, 0.587, 0.114])[np.clip(RAMP // 16 - 100, 0, 99)] * 255 / 99,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_dicom_beside_an_independent_decoding(kind):
    data, truth = KINDS[kind]
    film, note = pixels.decode(data, "film")
    assert film.dtype == np.uint8 and film.shape == truth.shape
    assert ("Rescale" in note) if "alone" in kind else note == ""
    assert np.abs(film - truth).max() <= 1.01


HALF_A_TABLE = table(BENT)
del HALF_A_TABLE[0].LUTDescriptor


@pytest.mark.parametrize(
    "elements, note",
    [
        ({"RescaleIntercept": None, "RescaleSlope": None}, "RescaleSlope is not usable"),
        ({"RescaleIntercept": 5, "RescaleSlope": 0}, "RescaleSlope is not usable, taken as 1"),
        ({"WindowCenter": 2048, "WindowWidth": 0}, "centre 2048.* is not used: .*Width"),
        ({"WindowCenter": 2048, "WindowWidth": -5}, "is not used"),
        ({"WindowCenter": 2048, "WindowWidth": None}, "width None is not used"),
        ({"WindowCenter": 9, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "not used.*CUBIC"),
        ({"VOILUTSequence": HALF_A_TABLE}, "VOI look-up table is not used"),
    ],
)
def test_what_cannot_be_followed_costs_no_film_and_is_said(elements, note):
    film, said = pixels.decode(dicom(RAMP, **elements), "film")
    assert np.array_equal(film, pixels.decode(dicom(RAMP), "film")[0])
    assert re.search(note, said)


def test_the_checks_of_data_and_the_flow_say_what_was_not_followed(tmp_path):
    rows = [f"{k},{k},{k}.dcm,F,50,PA,{k}" for k in (0, 1)]
    head = "image_id,patient_id,path,sex,age,view,Edema"
    (tmp_path / "cohort.csv").write_text("\n".join([head, *rows, ""]))
    (tmp_path / "0.dcm").write_bytes(dicom(RAMP))
    (tmp_path / "1.dcm").write_bytes(dicom(RAMP, WindowCenter=2048, WindowWidth=0))
    text, problems = check_data.report("own", tmp_path)
    assert "1 of 2 films opened are read otherwise than they say: 1.dcm: its window" in text
    assert problems == 0
    flow = own.build(tmp_path, access="open").flow
    assert flow["left_out"].iloc[-1].startswith("read otherwise than they say: 1 (1.dcm: its win")


def test_monochrome1_goes_before_a_shape_that_contradicts_it():
    data = dicom(RAMP, "MONOCHROME1", PresentationLUTShape="IDENTITY")
    film, note = pixels.decode(data, "film")
    assert np.abs(film - grey(-RAMP)).max() <= 1 and "contradicts" in note


HERE = pathlib.Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.mark.parametrize(
    "data, words",
    [
        (dicom(RAMP, PresentationLUTShape="INVERSE"), "MONOCHROME2 and .* INVERSE contradict"),
        (dicom(RAMP << 4, HighBit=15), "High Bit 15"),
        (dicom(np.stack([RAMP] * 3), NumberOfFrames=3), "expected one frame"),
        (dicom(RAMP * 0 + 7), "blank"),
        (dicom(RAMP, WindowCenter=40_000, WindowWidth=400), "blank film.*window"),
        (dicom(RAMP, WindowCenter=-4000, WindowWidth=400), "blank"),
        (dicom(RAMP, PixelPaddingValue=0, PixelPaddingRangeLimit=4095), "all are padding"),
        (dicom(RAMP, "HSV"), "Photometric Interpretation 'HSV' is not read"),
        ((HERE / "MR_small_jpeg_ls_lossless.dcm").read_bytes(), "pylibjpeg"),
        ((HERE / "JPEG-lossy.dcm").read_bytes(), "12-bit"),
        ((HERE / "SC_rgb_rle_2frame.dcm").read_bytes(), "expected one frame"),
    ],
)
def test_dicoms_that_are_refused(data, words):
    with pytest.raises(DataError, match=rf"^film: .*{words}") as caught:
        pixels.decode(data, "film")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("name", ["IM000001", "film.IMA", "film.png", "film.dcm"])
def test_dicom_is_told_by_its_content(tmp_path, name, syntax):
    data = dicom(RAMP, syntax=syntax)
    bare = io.BytesIO()
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.file_meta = None
    del dataset.preamble, dataset.file_meta
    dataset.save_as(
        bare,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=True,
        enforce_file_format=False,
    )
    for found in (data, bare.getvalue()):
        (tmp_path / name).write_bytes(found)
        assert np.abs(films.read(tmp_path / name) - grey(RAMP)).max() <= 1


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


GREY = (np.add.outer(3 * np.arange(40), 2 * np.arange(60)) % 256).astype(np.uint8)
DEEP = GREY.astype(np.uint16) * 15  # as 12 bits in 16
TURNS = {  # EXIF 2.32, tag 274: what is where the 0th row and the 0th column are
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.T,
    6: lambda x: x[::-1].T,
    7: lambda x: x[::-1, ::-1].T,
    8: lambda x: x[:, ::-1].T,
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("kind, options", [("JPEG", {"quality": 100}), ("PNG", {}), ("TIFF", {})])
def test_pictures_are_turned_as_they_say(kind, options, turn):
    exif = Image.Exif()
    exif[274] = turn
    smooth = (np.add.outer(2 * np.arange(40), 2 * np.arange(60))).astype(np.uint8)
    film, _ = pixels.decode(saved(Image.fromarray(smooth), kind, exif=exif, **options), "film")
    truth = TURNS[turn](smooth)
    assert film.shape == truth.shape and np.abs(film - truth.astype(float)).max() < 4


def with_alpha(mode):
    picture = Image.fromarray(np.stack([GREY, GREY, GREY, np.full_like(GREY, 255)], 2))
    picture.paste((255, 255, 255, 0), (0, 0, 10, 40))
    return picture.convert(mode)


def white_is_zero(values):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    return saved(Image.fromarray(values), "TIFF", tiffinfo=tags)


SEEN = np.where(np.arange(60) < 10, 0, GREY)  # transparent margin
INK = np.stack([255 - GREY, np.zeros_like(GREY), np.zeros_like(GREY), GREY // 2], 2)
CMYK = (255 - INK[..., :3].astype(float)) * (255 - INK[..., 3:].astype(float)) / 255
PICTURES = {
    "16-bit PNG": (saved(Image.fromarray(DEEP), "PNG"), grey(DEEP)),
    "16-bit TIFF": (saved(Image.fromarray(DEEP), "TIFF"), grey(DEEP)),
    "16-bit TIFF, white is 0": (white_is_zero(DEEP), grey(-DEEP.astype(int))),
    "8-bit TIFF, white is 0": (white_is_zero(GREY), GREY),  # PIL inverts when it writes, too
    "float TIFF": (saved(Image.fromarray(DEEP.astype("f4")), "TIFF"), grey(DEEP)),
    "float TIFF with NaN": (
        saved(Image.fromarray(np.where(SEEN > 0, DEEP, np.nan).astype("f4")), "TIFF"),
        grey(DEEP, SEEN > 0),
    ),
    "1 bit": (saved(Image.fromarray(GREY > 99), "PNG"), (GREY > 99) * 255),
    "palette": (
        saved(Image.fromarray(GREY).convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        GREY,
    ),
    "RGBA": (saved(with_alpha("RGBA"), "PNG"), SEEN),
    "grey with alpha": (saved(with_alpha("LA"), "PNG"), SEEN),
    "CMYK TIFF": (
        saved(Image.fromarray(INK, "CMYK"), "TIFF"),
        CMYK @ [0.299, 0.587, 0.114],
    ),
    "CMYK JPEG": (
        saved(Image.fromarray(INK, "CMYK"), "JPEG", quality=100),
        CMYK @ [0.299, 0.587, 0.114],
    ),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_beside_an_independent_decoding(kind):
    data, truth = PICTURES[kind]
    film, note = pixels.decode(data, "film")
    assert film.shape == truth.shape and note == ""
    assert np.abs(film - truth.astype(float)).max() <= (6 if "JPEG" in kind else 1.01)


@pytest.mark.parametrize(
    "data, words",
    [
        (saved(Image.new("L", (60, 40), 128), "PNG"), "blank"),
        (saved(Image.fromarray(GREY % 3), "PNG"), "blank"),
        (saved(Image.fromarray(DEEP * 0 + 900), "PNG"), "blank"),
        (saved(Image.new("LA", (60, 40)), "PNG"), "blank"),
        (cv2.imencode(".png", np.stack([DEEP] * 3, 2))[1].tobytes(), "16 bits per colour"),
        (
            saved(
                Image.fromarray(GREY), "TIFF", save_all=True,
                append_images=[Image.fromarray(GREY)],
            ),
            "2 images; expected one",
        ),
        (b"GIF89a" + b"\0" * 200, "film: "),
    ],
)  # fmt: skip
def test_pictures_that_are_refused(data, words):
    with pytest.raises(DataError, match=words):
        pixels.decode(data, "film")
