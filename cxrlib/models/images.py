"""From 8-bit grey radiographs to what an encoder takes, step by step as each upstream does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

BICUBIC, BILINEAR = InterpolationMode.BICUBIC, InterpolationMode.BILINEAR
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)


def each(prepare: Callable[[Image.Image], torch.Tensor]) -> Callable:
    """A preprocess function of images from one of a single grey PIL image.

    It takes one image or several, as arrays (h, w) of uint8 or as PIL images, also of different
    sizes, and returns a float tensor (n, 3, h, w).
    """

    def preprocess(images):
        alone = isinstance(images, Image.Image) or getattr(images, "ndim", 3) == 2
        return torch.stack([prepare(grey(x)) for x in ([images] if alone else images)])

    return preprocess


def grey(image: np.ndarray | Image.Image) -> Image.Image:
    """An 8-bit grey PIL image.

    Raises
    ------
    ValueError
        More or fewer than two dimensions, other values than uint8, or no pixels.
    """
    if isinstance(image, Image.Image):
        if image.mode not in ("L", "LA", "RGB", "RGBA", "P"):
            raise ValueError(
                f"an image in mode {image.mode!r}: expected 8 bits a pixel; rescale it to 0..255"
            )
        return image.convert("L")
    image = np.asarray(image)
    if image.ndim != 2 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(
            f"an image of shape {image.shape} and type {image.dtype}: expected a grey radiograph "
            "(height, width) of uint8"
        )
    return Image.fromarray(image)


def tensor(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Three equal channels in [0, 1], standardised: float (3, h, w)."""
    return TF.normalize(TF.to_tensor(image.convert("RGB")), mean, std)


def short_side(image: Image.Image, size: int, how: InterpolationMode, crop: int) -> Image.Image:
    """Shorter side to ``size``, then the central square of side ``crop``."""
    return TF.center_crop(TF.resize(image, size, how), crop)


def clip(image: Image.Image) -> torch.Tensor:
    """OpenAI's: bicubic to 224, central square, the pixel statistics of CLIP's training set."""
    return tensor(short_side(image, 224, BICUBIC, 224), *OPENAI)


def stored_by_s(image: np.ndarray | Image.Image, size: int = 224) -> np.ndarray:
    """What paper S stored of a film of NIH-CXR14 before any model saw it: uint8 (size, size).

    The aspect ratio is not kept, and OpenCV's bilinear resizing does not antialias. Then the
    darkest pixel becomes 0 and the brightest 255. How its films of MIMIC-CXR were stored is not
    published.

    Parameters
    ----------
    image : uint8 array (height, width) or PIL image
    size : int
        Pixels a side; 224 for S, fewer for small phantoms.
    """
    import cv2

    small = cv2.resize(np.asarray(grey(image)), (size, size))
    whole = np.empty_like(small)
    return np.asarray(cv2.normalize(small, whole, alpha=0, beta=255, norm_type=cv2.NORM_MINMAX))
