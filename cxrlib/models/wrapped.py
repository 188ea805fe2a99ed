"""Models of two libraries with the two methods that every network here has."""

from __future__ import annotations

import torch
from torch import nn


class OfTransformers(nn.Module):
    """A model of transformers with ``get_image_features`` and ``get_text_features``.

    Parameters
    ----------
    model : nn.Module
    masked : bool
        Whether it is given the attention mask, as it is where its tokenizer makes one.
    """

    def __init__(self, model: nn.Module, masked: bool):
        super().__init__()
        self.model, self.masked = model, masked

    def encode_image(self, batch: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) to (n, d)."""
        return _pooled(self.model.get_image_features(pixel_values=batch))

    def encode_text(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Two (n, length) to (n, d)."""
        inputs = {"attention_mask": mask} if self.masked else {}
        return _pooled(self.model.get_text_features(input_ids=ids, **inputs))


def _pooled(found):
    return found if isinstance(found, torch.Tensor) else found.pooler_output


class OfOpenClip(nn.Module):
    """A model of open_clip, which finds the padding of a text by itself."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def encode_image(self, batch: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) to (n, d)."""
        return self.model.encode_image(batch)

    def encode_text(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Token numbers (n, length) to (n, d)."""
        return self.model.encode_text(ids)
