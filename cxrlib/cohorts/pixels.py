"""The bytes of one file to an 8-bit grey radiograph, as the file itself says how it is meant.

What a file is (DICOM, PNG, ...) is told by its content, never by its name.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cxrlib.cohorts.files import DataError

if TYPE_CHECKING:  # slow to import, and most cohorts have no DICOM
    from pydicom import Dataset

READING = 2  # raise it whenever films come out otherwise: they are checked and encoded anew
FLAT = 0.95  # share of pixels within three neighbouring grey levels from which a film is blank
WHITE_IS_ZERO = 0  # Photometric Interpretation (tag 262) of a TIFF
RESCALE = {"RescaleSlope": 1.0, "RescaleIntercept": 0.0}  # what an empty one stands for


def decode(data: bytes, name: str) -> tuple[np.ndarray, str]:
    """A radiograph as uint8 (height, width), bright bone on dark air, and a note.

    Pictures (PNG, JPEG, TIFF, ...) are turned as their EXIF orientation says. Those of 8 bits
    become grey as PIL does it, transparent parts black; deeper grey ones are scaled from their
    darkest to their brightest value.

    DICOM (PS3.3, C.7.6.3 and C.11): modality transformation (look-up table or rescale), then the
    first VOI look-up table or window, then the darkest becomes 0 and the brightest 255, and
    MONOCHROME1 is inverted. Padding has no part in the scale and becomes 0. Colours, also those of
    a palette, become grey as PIL does it.

    Parameters
    ----------
    data : bytes
    name : str
        Of the file, for messages.

    Returns
    -------
    film : uint8 (height, width)
    note : str
        What of the file was not followed and why, such as a window of width 0; "" if nothing.

    Raises
    ------
    DataError
        A file that is empty, damaged or no image; several images, or a blank one; pixels of a kind
        or compression that cannot be read; DICOM elements that contradict each other.
    """
    try:
        if not data:
            raise DataError("the file is empty")
        film, note = _picture(data) if data[128:132] != b"DICM" else _dicom(_dataset(data))
        levels = np.convolve(np.bincount(film.ravel(), minlength=256), np.ones(3))
        if levels.max() > FLAT * film.size:
            raise DataError(
                "a blank film: almost all its pixels have one grey level (no radiograph, or a "
                f"window beside its values){f'; {note}' if note else ''}"
            )
        return film, note
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def _picture(data: bytes) -> tuple[np.ndarray, str]:
    """Film and note of what PIL can read, or of a DICOM file that lacks its first 132 bytes."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format != "MPO" and (n := getattr(image, "n_frames", 1)) > 1:
                raise DataError(f"a file of {n} images; expected one")
            sixteen = ";16" in str(getattr(image, "tile", ""))
            inverted = getattr(image, "tag_v2", {}).get(262) == WHITE_IS_ZERO
            image.load()
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith(("I", "F")):
                pixels = np.asarray(image, dtype=float)
                return stretch(-pixels if inverted else pixels, np.isfinite(pixels)), ""
            if sixteen:
                raise DataError(
                    "16 bits per colour are not read; save it as a grey image of 16 bits"
                )
            if image.has_transparency_data:
                black = Image.new("RGBA", image.size, "black")
                image = Image.alpha_composite(black, image.convert("RGBA"))
            return np.asarray(image.convert("L")), ""
    except UnidentifiedImageError:
        pass
    except DataError:
        raise
    except Exception as error:  # PIL's readers raise what they like
        raise DataError(f"damaged or cut off ({_reason(error)})") from None
    dataset = _dataset(data, force=True)
    if "PixelData" in dataset and "Rows" in dataset:
        return _dicom(dataset)
    raise DataError("no image and no DICOM file, or one that is damaged or cut off")


def _dataset(data: bytes, force: bool = False) -> Dataset:
    import pydicom
    from pydicom import uid

    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=force)
    except Exception as error:  # pydicom raises what it likes
        what = "no image and no DICOM file" if force else "a damaged DICOM file"
        raise DataError(f"{what} ({_reason(error)})") from None
    if "TransferSyntaxUID" not in dataset.file_meta:
        by_encoding = {
            (True, True): uid.ImplicitVRLittleEndian,
            (False, True): uid.ExplicitVRLittleEndian,
            (False, False): uid.ExplicitVRBigEndian,
        }
        dataset.file_meta.TransferSyntaxUID = by_encoding.get(dataset.original_encoding)
    return dataset


def _dicom(dataset: Dataset) -> tuple[np.ndarray, str]:
    """Film and note of a DICOM file."""
    if "PixelData" not in dataset:
        raise DataError("a DICOM file without pixel data")
    try:
        kind = str(dataset.get("PhotometricInterpretation"))
        if kind.startswith("MONOCHROME"):
            return _grey(dataset)
        if kind == "PALETTE COLOR":
            return _of_colours(_through_palette(dataset)), ""
        if kind.startswith(("RGB", "YBR_")):
            return _of_colours(dataset.pixel_array), ""  # which turns YBR to RGB
    except DataError:
        raise
    except Exception as error:  # pydicom's decoders raise what they like
        raise DataError(f"its pixels cannot be decoded ({_reason(error)})") from None
    raise DataError(f"Photometric Interpretation {kind!r} is not read")


def _grey(dataset: Dataset) -> tuple[np.ndarray, str]:
    kind = dataset.PhotometricInterpretation
    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    if kind == "MONOCHROME2" and shape == "INVERSE":
        raise DataError(
            "Photometric Interpretation MONOCHROME2 and Presentation LUT Shape INVERSE contradict "
            "each other: whether bone is bright cannot be told; look at it and mend one of them"
        )
    if dataset.get("HighBit") not in (None, dataset.BitsStored - 1):
        raise DataError(
            f"High Bit {dataset.HighBit} with {dataset.BitsStored} Bits Stored is not read; "
            "expected one less than Bits Stored"
        )
    notes = []
    if kind == "MONOCHROME1" and shape == "IDENTITY":
        notes.append("Presentation LUT Shape IDENTITY contradicts MONOCHROME1, which was followed")
    padding = _number(dataset, "PixelPaddingValue")
    if padding is not None and not -(2 ** (dataset.BitsStored - 1)) <= padding < (
        2**dataset.BitsStored
    ):  # or the bits above those stored, which make it padding, would be cleared
        dataset.BitsStored = dataset.BitsAllocated
    pixels = dataset.pixel_array
    _one_frame(pixels, 2)
    film = _windowed(_rescaled(pixels, dataset, notes), dataset, notes)
    film = -film.astype(float) if kind == "MONOCHROME1" else film
    return stretch(film, ~_padded(pixels, dataset, padding)), "; ".join(notes)


def _padded(pixels: np.ndarray, dataset: Dataset, value: float | None) -> np.ndarray:
    """Which pixels (height, width) are padding: of that value, or from it to the range limit."""
    if value is None:
        return np.zeros(pixels.shape, bool)
    limit = _number(dataset, "PixelPaddingRangeLimit")
    ends = np.array([value, value if limit is None else limit], np.int64)
    low, high = np.sort(ends.astype(pixels.dtype))  # some files give it the other sign
    return (low <= pixels) & (pixels <= high)


def _rescaled(pixels: np.ndarray, dataset: Dataset, notes: list[str]) -> np.ndarray:
    """What the stored values stand for, float or int (height, width)."""
    if dataset.get("ModalityLUTSequence"):
        item = dataset.ModalityLUTSequence[0]
        return _looked_up(pixels, item.LUTDescriptor, item.LUTData, dataset)
    if not any(key in dataset for key in RESCALE):
        return pixels.astype(float)
    given = {key: _number(dataset, key) for key in RESCALE}
    used = {key: given[key] or default for key, default in RESCALE.items()}  # a slope of 0, too
    notes += [f"{key} is not usable, taken as {x:g}" for key, x in used.items() if x != given[key]]
    return pixels * used["RescaleSlope"] + used["RescaleIntercept"]


def _windowed(values: np.ndarray, dataset: Dataset, notes: list[str]) -> np.ndarray:
    """Values through the first VOI look-up table or window, where there is a usable one."""
    from pydicom.pixels import apply_windowing

    tables = [x for x in dataset.get("VOILUTSequence") or () if x.get("LUTData") is not None]
    window = [dataset.get(key) for key in ("WindowCenter", "WindowWidth")]
    if not tables and window == [None, None]:
        return values
    # pydicom turns a window upside down where the slope is negative; it needs neither here.
    for key in (*RESCALE, "ModalityLUTSequence"):
        dataset.pop(key, None)
    if not dataset.get("VOILUTFunction"):
        dataset.VOILUTFunction = "LINEAR"
    try:
        if tables:
            return _looked_up(values, tables[0].LUTDescriptor, tables[0].LUTData, dataset)
        with np.errstate(over="ignore"):  # the sigmoid, far from its centre
            seen = apply_windowing(values, dataset)
        if np.isfinite(seen).all():
            return seen
        reason = "not a number"
    except Exception as error:  # pydicom raises what it likes
        reason = _reason(error)
    what = "VOI look-up table" if tables else "window of centre {} and width {}".format(*window)
    notes.append(f"its {what} is not used: {reason}")
    return values


def _looked_up(
    values: np.ndarray, descriptor: Sequence[int], data: bytes | Sequence[int], dataset: Dataset
) -> np.ndarray:
    """Values through a table; those beyond its ends take its first or last entry."""
    # Not by pydicom, which lets numbers overflow in tables with entries of 8 bits.
    entries, first = int(descriptor[0]) % 2**16 or 2**16, int(descriptor[1])
    if isinstance(data, bytes):
        order = "<>"[not dataset.file_meta.TransferSyntaxUID.is_little_endian]
        data = np.frombuffer(data, f"{order}u2" if len(data) >= 2 * entries else "u1")
    table = np.asarray(data)[:entries]
    return table[np.clip(np.rint(values).astype(int) - first, 0, len(table) - 1)]


def _through_palette(dataset: Dataset) -> np.ndarray:
    """The colours (height, width, 3) of indices into a palette."""
    from pydicom.pixels import apply_color_lut

    pixels = dataset.pixel_array
    _one_frame(pixels, 2)
    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    if f"{names[0]}Data" not in dataset:
        return apply_color_lut(pixels, dataset)[..., :3]  # in segments
    return np.stack(
        [_looked_up(pixels, dataset[f"{x}Descriptor"].value, dataset[f"{x}Data"].value, dataset)
         for x in names],
        axis=-1,
    )  # fmt: skip


def _one_frame(pixels: np.ndarray, dimensions: int) -> None:
    if pixels.ndim != dimensions:
        raise DataError(f"pixels of shape {pixels.shape}; expected one frame")


def _of_colours(pixels: np.ndarray) -> np.ndarray:
    """Colours (height, width, 3) to grey; deeper ones than 8 bits by the brightest of them."""
    _one_frame(pixels, 3)
    if pixels.dtype != np.uint8:
        pixels = np.round(pixels * (255 / max(int(pixels.max()), 1))).astype(np.uint8)
    return np.asarray(Image.fromarray(pixels).convert("L"))


def _number(dataset: Dataset, key: str) -> float | None:
    """The value of an element; None where it is missing, empty or no number."""
    try:
        value = float(dataset.get(key))
    except (TypeError, ValueError):
        return None
    return value if np.isfinite(value) else None


def _reason(error: Exception) -> str:
    """All lines of a message as one: what is wanted often stands in the last."""
    return " ".join(str(error).split()) or type(error).__name__


def stretch(pixels: np.ndarray, use: np.ndarray) -> np.ndarray:
    """Numbers (height, width) to uint8: the smallest becomes 0, the largest 255.

    Those not in ``use``, bool (height, width), have no part in this and become 0.
    """
    if not use.any():
        raise DataError("none of its pixels has a value (all are padding, or no numbers)")
    low, high = float(pixels[use].min()), float(pixels[use].max())
    scale = 255 / (high - low) if high > low else 0.0
    return np.round((np.where(use, pixels, low) - low) * scale).astype(np.uint8)
