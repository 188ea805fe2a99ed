"""Image encoders that several published models share, and how their parts get upstream's names."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn
from torchvision.models import ResNet, resnet50
from transformers import SwinConfig, SwinModel


def named(**parts: nn.Module) -> nn.Sequential:
    """Modules one after the other, under these names."""
    return nn.Sequential(OrderedDict(parts))


def resnet(head: nn.Module) -> ResNet:
    """An untrained ResNet-50; this head, in place of its own, gets the 2048 averaged features."""
    network = resnet50()
    network.fc = head
    return network


def swin() -> SwinModel:
    """An untrained Swin-T (Liu et al. 2021, arXiv:2103.14030): transformers' own.

    With patches of 4 and windows of 7, for images of 224 x 224, as its configuration comes. Its
    ``last_hidden_state`` (n, 49, 768) is after the last LayerNorm, row by row from the top left;
    ``pooler_output`` (n, 768) is the mean over the 49 tokens.
    """
    return SwinModel(SwinConfig())
