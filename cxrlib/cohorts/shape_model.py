"""Compact shape model of the lung fields, fitted to the masks in the torchxrayvision wheel.

Each lung is three curves: the lateral and the medial edge (x as a function of height) and the
diaphragm (y as a function of width). Curves are what a renderer can draw a batch at a time, since
a pixel is inside when it lies between two row values and above one column value. A principal
component analysis over all curves gives a few numbers a chest. ``python -m
cxrlib.cohorts.shape_model`` fits it again and writes ``anatomy.npz``.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

EDGE_POINTS, DOME_POINTS, COMPONENTS = 20, 14, 6
FILE = Path(__file__).with_name("anatomy.npz")
MASKS = "data/semantic_masks_v7labs_lungs.zip"


@dataclass(frozen=True)
class ShapeModel:
    """Mean, components (K, D) and standard deviations (K,) of the curve vector of two lungs.

    The curve vector holds, for the right lung (image left) and then the left lung: top, bottom,
    lateral edge (20), medial edge (20), diaphragm (14). The frame is x in [-1, 1] from the outer
    border of one lung to that of the other, y in [0, 1] from the higher apex to the lowest point.
    """

    mean: np.ndarray
    components: np.ndarray
    sd: np.ndarray
    n_masks: int

    def curves(self, coefficients: np.ndarray) -> tuple[dict, dict]:
        """Curves of n chests from standardised coefficients (n, K): one dictionary a lung."""
        k = self.sd * np.asarray(coefficients, np.float32)
        flat = self.mean + k @ self.components
        return tuple(_unpack(half) for half in np.split(flat.astype(np.float32), 2, axis=1))


def _unpack(v: np.ndarray) -> dict:
    cuts = np.cumsum([1, 1, EDGE_POINTS, EDGE_POINTS])
    top, bottom, lateral, medial, dome = np.split(v, cuts, axis=1)
    return {"top": top, "bottom": bottom, "lateral": lateral, "medial": medial, "dome": dome}


@lru_cache
def load() -> ShapeModel:
    """The fitted model that ships with the package."""
    with np.load(FILE) as f:
        arrays = (f[k].astype(np.float32) for k in ("mean", "components", "sd"))
        return ShapeModel(*arrays, int(f["n_masks"]))


def fit(path: Path | None = None) -> ShapeModel:
    """Fit the model to a zip file of binary lung masks (default: the one in the wheel)."""
    from sklearn.decomposition import PCA

    path = path or Path(find_spec("torchxrayvision").submodule_search_locations[0]) / MASKS
    vectors = [v for mask in _masks(path) if (v := _describe(mask)) is not None]
    pca = PCA(COMPONENTS).fit(np.stack(vectors))
    return ShapeModel(pca.mean_, pca.components_, np.sqrt(pca.explained_variance_), len(vectors))


def save(model: ShapeModel, path: Path = FILE) -> None:
    """Write a model in half precision (about 3 KB)."""
    arrays = {k: getattr(model, k).astype(np.float16) for k in ("mean", "components", "sd")}
    np.savez_compressed(path, n_masks=model.n_masks, **arrays)


def _masks(path):
    from PIL import Image

    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if not name.endswith("/"):
                image = Image.open(io.BytesIO(archive.read(name))).convert("L")
                yield np.asarray(image.resize((256, 256))) > 128


def _describe(mask: np.ndarray) -> np.ndarray | None:
    """Curve vector of one mask, or None when it does not show exactly two upright lungs."""
    from scipy import ndimage

    parts, n = ndimage.label(mask)
    sizes = ndimage.sum(mask, parts, range(1, n + 1))
    big = [i + 1 for i in np.flatnonzero(sizes > 0.03 * mask.size)]
    if len(big) != 2:
        return None
    lungs = sorted((parts == i for i in big), key=lambda m: np.nonzero(m)[1].mean())
    both = np.nonzero(lungs[0] | lungs[1])
    (y0, y1), (x0, x1) = (both[0].min(), both[0].max()), (both[1].min(), both[1].max())
    if not 0.6 < (x1 - x0) / (y1 - y0) < 1.6:
        return None
    vectors = [_lung(m, side, (x0, x1), (y0, y1)) for m, side in zip(lungs, (-1, 1), strict=True)]
    return np.concatenate(vectors)


def _lung(mask: np.ndarray, side: int, xs: tuple[int, int], ys: tuple[int, int]) -> np.ndarray:
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left = np.array([np.flatnonzero(mask[r])[0] for r in rows])
    right = np.array([np.flatnonzero(mask[r])[-1] for r in rows])
    base = np.array([np.flatnonzero(mask[:, c])[-1] for c in cols])
    lateral, medial = (left, right) if side < 0 else (right, left)
    # An edge ends where the diaphragm takes over; below that it is held.
    inset = 0.08 * (cols[-1] - cols[0])
    for edge, sign in ((lateral, side), (medial, -side)):
        column = int(np.clip(np.median(edge) - sign * inset, cols[0], cols[-1]))
        last = np.searchsorted(rows, base[column - cols[0]] - 2)
        edge[last:] = edge[min(last, len(edge)) - 1]
    y = (rows - ys[0]) / (ys[1] - ys[0])
    fx = lambda v: 2 * (v - xs[0]) / (xs[1] - xs[0]) - 1  # noqa: E731
    t = np.linspace(0, 1, EDGE_POINTS)
    height = (rows - rows[0]) / (rows[-1] - rows[0])
    # Columns medial of the edge belong to the apex, not to the diaphragm.
    base = base[side * (cols - np.median(medial)) >= 3]
    outer_to_inner = base if side < 0 else base[::-1]
    s = np.linspace(0, 1, DOME_POINTS)
    dome = np.interp(s, np.linspace(0, 1, len(base)), outer_to_inner)
    dome = (dome - ys[0]) / (ys[1] - ys[0])
    edges = [np.interp(t, height, fx(edge)) for edge in (lateral, medial)]
    return np.concatenate([[y[0], y[-1]], *edges, dome])


if __name__ == "__main__":
    model = fit()
    save(model)
    print(f"{FILE.name}: {model.n_masks} masks, {COMPONENTS} components")
