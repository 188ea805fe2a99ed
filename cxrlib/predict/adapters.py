"""The image half of a model as a network that can be trained: whole, or by low-rank adapters."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pandas as pd
import torch
from open_clip.modified_resnet import AttentionPool2d
from open_clip.transformer import ResidualAttentionBlock
from timm.models.davit import ChannelBlock, SpatialBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.checkpoint import checkpoint
from transformers.models.swin.modeling_swin import SwinLayer

from cxrlib.models.encoder import Encoder

DEPTHWISE = "depthwise convolution"
LAYERS = (nn.Linear, nn.Conv2d)
BLOCKS = (ResidualAttentionBlock, Block, SpatialBlock, ChannelBlock, SwinLayer)  # of transformers


class Tower(nn.Module):
    """What turns images into embeddings: ``network.encode_image``, without the text half."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network.encode_image(x)


class AttentionPool(nn.Module):
    """The attention pooling of CLIP's ResNets, with its four layers called.

    open_clip's own reads their weights without calling them, so that an adapter around them would
    be bypassed. Same names, same result.
    """

    def __init__(self, pool: AttentionPool2d):
        super().__init__()
        self.positional_embedding, self.num_heads = pool.positional_embedding, pool.num_heads
        self.k_proj, self.q_proj = pool.k_proj, pool.q_proj
        self.v_proj, self.c_proj = pool.v_proj, pool.c_proj

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to (n, d): what the mean of all positions sees when it looks at them."""
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positional_embedding
        q, k, v = (
            layer(z).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for layer, z in ((self.q_proj, x[:, :1]), (self.k_proj, x), (self.v_proj, x))
        )
        return self.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1))


class Attention(nn.Module):
    """Self-attention of open_clip's blocks, and SigLIP's pooling, with their two layers called.

    torch's own reads its weights without calling layers. peft adapts it nevertheless, by adding
    the update to the weights before each pass and subtracting it afterwards, which wears away
    their last digits. The fused query, key and value are one linear layer here.
    """

    def __init__(self, own: nn.MultiheadAttention):
        super().__init__()
        self.num_heads, self.batch_first = own.num_heads, own.batch_first
        width = own.embed_dim
        self.in_proj = nn.Linear(width, 3 * width, device="meta")
        self.in_proj.weight, self.in_proj.bias = own.in_proj_weight, own.in_proj_bias
        self.out_proj = nn.Linear(width, width, device="meta")
        self.out_proj.weight, self.out_proj.bias = own.out_proj.weight, own.out_proj.bias

    def forward(
        self,
        x: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """What torch's returns, for the arguments that these image encoders give."""
        if key is not value or need_weights or attn_mask is not None:
            raise NotImplementedError(
                "LoRA on attention with a mask, weights, or keys of their own"
            )
        queries, pairs = (y if self.batch_first else y.transpose(0, 1) for y in (x, key))
        q, k, v = self.in_proj(queries).chunk(3, dim=2)
        if key is not x:
            _, k, v = self.in_proj(pairs).chunk(3, dim=2)
        q, k, v = (y.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for y in (q, k, v))
        x = self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return (x if self.batch_first else x.transpose(0, 1)), None


CALLING = {AttentionPool2d: AttentionPool, nn.MultiheadAttention: Attention}


def probe(model: Encoder) -> Tensor:
    """Two made-up films, prepared as the model wants them."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 96, 96), dtype=np.uint8)
    return model.preprocess(list(noise))


def tower(model: Encoder) -> Tower:
    """A copy of the image half, ready for training; the model stays as it is.

    Parameters that no image passes through (the text half, unused heads) are not copied. What an
    architecture keeps fixed, such as positions made of sines, stays fixed.
    """
    used = _used(model.network, probe(model))
    # Parameters noted here are copied as None.
    left_out = {id(p): None for n, p in model.network.named_parameters() if n not in used}
    return Tower(copy.deepcopy(model.network, memo=left_out))


def _used(network, x):
    """Names of the parameters that decide what ``encode_image`` gives."""
    parameters = dict(network.named_parameters())
    device = next(iter(parameters.values())).device
    wanted = {n: p.requires_grad for n, p in parameters.items()}
    try:
        network.requires_grad_(True)
        todo, seen = [network.encode_image(x.to(device)).grad_fn], set()
    finally:
        for name, p in parameters.items():
            p.requires_grad_(wanted[name])
    # The graph that autograd would walk back; parameters are the leaves.
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [before for before, _ in node.next_functions]
    leaves = {id(node.variable) for node in seen if hasattr(node, "variable")}
    return {n for n, p in parameters.items() if id(p) in leaves}


def with_lora(tower: Tower, x: Tensor, rank: int) -> nn.Module:
    """Low-rank updates (Hu et al. 2022) on all layers of the tower; all else is frozen.

    Convolutions and linear layers, those of attention too, fused or not. Depthwise convolutions,
    which peft cannot merge, are left as they are, and so are matrices that are no layers:
    :func:`listing` counts both.

    Parameters
    ----------
    tower : Tower
        Becomes part of what is returned; attention is replaced by a form that calls its layers.
    x : two prepared images
    rank : int

    Raises
    ------
    RuntimeError
        An adapted layer gets no gradient, so the network bypasses it.
    """
    for name, module in list(tower.named_modules()):
        if type(module) in CALLING and _has_weights(module):
            tower.set_submodule(name, CALLING[type(module)](module))
    targets = _layers(tower, x)
    from peft import LoraConfig, get_peft_model  # takes seconds, and heads need none of it

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
    adapted = get_peft_model(tower, config)
    for module in adapted.modules():
        if hasattr(module, "lora_A"):  # timm's DaViT asks its convolutions for their kernel size
            own = module.get_base_layer()
            for name in own.__constants__:
                vars(module).setdefault(name, getattr(own, name))
    check_gradients(adapted, x)
    return adapted


def _layers(tower, x):
    """Names of the layers to adapt: those that are called and that peft knows how to adapt."""
    called = set()
    noted = register_module_forward_hook(lambda module, *_: called.add(module))
    with noted, torch.no_grad():
        tower.eval()(x.to(_device(tower)))
    modules = tower.named_modules()
    layers = {n: m for n, m in modules if isinstance(m, LAYERS) and _has_weights(m)}
    if bypassed := [n for n, m in layers.items() if m not in called]:
        raise RuntimeError(
            f"layers whose weights are read without calling them, so that adapters would be "
            f"bypassed: {', '.join(bypassed[:5])}"
        )
    return [n for n, m in layers.items() if _kind(m) != DEPTHWISE]


def _has_weights(module):
    return any(p is not None for p in module.parameters())


def _device(network):
    return next(network.parameters()).device


def check_gradients(adapted: nn.Module, x: Tensor) -> None:
    """Raise a RuntimeError if the loss does not depend on some adapter."""
    adapted.eval()
    adapters = {n: p for n, p in adapted.named_parameters() if p.requires_grad}
    loss = adapted(x.to(_device(adapted))).square().sum()
    gradients = torch.autograd.grad(loss, list(adapters.values()), allow_unused=True)
    # An update is B A with B = 0 at first, so that the first gradient reaches B alone.
    reached = {n for n, g in zip(adapters, gradients, strict=True) if g is not None and g.any()}
    if idle := [n for n in adapters if "lora_B" in n and n not in reached]:
        raise RuntimeError(f"LoRA adapters without a gradient, so bypassed: {', '.join(idle[:5])}")


def merged(adapted: nn.Module) -> Tower:
    """A copy of an adapted tower with its updates added to the weights, as it would be deployed."""
    return copy.deepcopy(adapted).merge_and_unload()


def listing(adapted: nn.Module) -> pd.DataFrame:
    """What LoRA adapts: one row per kind of layer, ``layer, adapted, left_out, trained``.

    ``adapted`` and ``left_out`` count layers, or matrices that are no layers (bare projections,
    tables of positions); ``trained`` counts the numbers in their adapters.
    """
    inside, rows = set(), []
    for name, module in adapted.named_modules():
        if any(name.startswith(f"{outer}.") for outer in inside):
            continue
        if hasattr(module, "lora_A"):
            numbers = sum(p.numel() for p in module.parameters() if p.requires_grad)
            rows.append((_kind(module.get_base_layer()), 1, 0, numbers))
            inside.add(name)
        elif isinstance(module, LAYERS) and _has_weights(module):
            rows.append((_kind(module), 0, 1, 0))
            inside.add(name)
        else:
            own = (p for p in module._parameters.values() if p is not None)
            rows += [("matrix that is no layer", 0, 1, 0) for p in own if p.squeeze().ndim > 1]
    table = pd.DataFrame(rows, columns=["layer", "adapted", "left_out", "trained"])
    table = table.sort_values("adapted", ascending=False, kind="stable")  # what is adapted first
    return table.groupby("layer", sort=False).sum().reset_index()


def _kind(layer):
    if isinstance(layer, nn.Conv2d):
        return DEPTHWISE if layer.groups > 1 else "convolution"
    return "linear layer"


def recompute_activations(network: nn.Module) -> None:
    """Gradient checkpointing of each transformer block: it keeps its input and runs twice.

    The switches of the libraries are not used: that of transformers does nothing in evaluation
    mode, in which a tower with adapters is trained; timm's runs most blocks of a DaViT three times.

    Raises
    ------
    ValueError
        A network without such blocks, such as a ResNet, whose BatchNorm would count each batch
        twice.
    """
    blocks = [m for m in network.modules() if isinstance(m, BLOCKS) and _has_weights(m)]
    if not blocks:
        raise ValueError(
            "recompute=True: this network has no transformer blocks (ResNets have none): set "
            "split_batches=True, or lower batch"
        )
    for block in blocks:
        # The reentrant form does not work with torch.autograd.grad, as in check_gradients.
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
