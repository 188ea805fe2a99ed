"""LoRA and full fine-tuning reach every layer of every image encoder, and nothing else."""

import copy
import hashlib
import re
from types import SimpleNamespace

import pytest
import timm
import torch
from open_clip.modified_resnet import AttentionPool2d
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet50
from transformers import SwinConfig, SwinModel

from cxrlib import models
from cxrlib.models.parts import swin
from cxrlib.predict import adapters
from cxrlib.predict.finetune import Classifier, Head

RANK = 4
# In CI one of each kind: open_clip's ResNet and ViT, torchvision's ResNet, transformers' Swin, and
# small ones of timm. The others take 6 s to 6 min each, and up to 12 GB: `pytest -m slow`.
QUICK = ("phantom-resnet", "phantom-vit", "medclip_rn50", "medclip_vit", "small ViT", "small DaViT")
SLOW = [
    pytest.param(n, marks=pytest.mark.slow) for n in models.published_models() if n not in QUICK
]

# What images do not pass through: text encoders, temperatures, GLoRIA's local comparison, the
# ImageNet head that BioViL's file contains, and BioViL-T's comparison with a previous film.
NOT_IMAGES = re.compile(
    r"(transformer|token_embedding|positional_embedding|ln_final|text_projection|logit_scale"
    r"|text|text_model|text_encoder|lang_encoder|lang_projection)(\.|$)"
    r"|img_encoder\.local_embedder\.|image\.encoder\.(encoder\.fc|vit_pooler)\."
)


class Small(nn.Module):
    """An encoder of images with a bare projection matrix, as MedImageInsight's, and a text half."""

    def __init__(self, encoder, width, output=lambda y: y):
        super().__init__()
        self.image_encoder, self.output = encoder, output
        self.projection = nn.Parameter(torch.randn(width, 8))
        self.text = nn.Linear(3, 3)

    def encode_image(self, batch):
        return self.output(self.image_encoder(batch)) @ self.projection


def as_model(name, network, side=32):
    batch = torch.randn(2, 3, side, side)
    return SimpleNamespace(name=name, network=network.eval(), preprocess=lambda films: batch)


def small(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "small ViT":
            net = timm.models.VisionTransformer(
                img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=0
            )
            network = Small(net, 32)
        elif kind == "small DaViT":
            widths = {"embed_dims": (8, 16, 24, 32), "num_heads": (1, 2, 3, 4)}
            net = timm.models.DaVit(depths=(1, 1, 2, 1), window_size=2, num_classes=0, **widths)
            network = Small(net, 32)
        elif kind == "small Swin":
            config = SwinConfig(
                image_size=32,
                patch_size=4,
                embed_dim=16,
                depths=(2, 2),
                num_heads=(2, 4),
                window_size=4,
                drop_path_rate=0.4,
            )
            network = Small(SwinModel(config), 32, output=lambda y: y.pooler_output)
        return as_model(kind, network)


def load(name):
    if name.startswith("small"):
        return small(name)
    return models.load_model(name if name in models.model_names() else f"seeded:{name}")


@pytest.fixture(scope="module", params=[*QUICK, *SLOW])
def model(request):
    return load(request.param)


def bits(network):
    """A hash of each parameter and buffer."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    return {n: hashlib.sha256(t.detach().contiguous().numpy()).digest() for n, t in tensors}


def flags(network):
    return [(p.requires_grad, p.grad) for p in network.parameters()]


def test_the_tower_is_the_image_half_and_all_of_it_can_be_trained(model):
    before, wanted, x = bits(model.network), flags(model.network), adapters.probe(model)
    tower = adapters.tower(model)
    with torch.no_grad():
        assert torch.equal(tower(x), model.network.encode_image(x))
    kept = {n.removeprefix("network.") for n, _ in tower.named_parameters()}
    all_names = {n for n, _ in model.network.named_parameters()}
    assert kept == {n for n in all_names if not NOT_IMAGES.match(n)} < all_names

    torch.manual_seed(0)
    tower.train()(x).square().sum().backward()
    trained = {n: p.grad for n, p in tower.named_parameters() if p.requires_grad}
    # Attention does not depend on the bias of its keys, which adds the same to all positions.
    assert all(g.any() for n, g in trained.items() if not n.endswith("k_proj.bias"))
    fixed = {n for n, p in tower.named_parameters() if not p.requires_grad}
    sines = {"network.visual.positional_embedding"} if model.name == "phantom-vit" else set()
    assert fixed == sines
    assert bits(model.network) == before and flags(model.network) == wanted


def test_a_step_of_lora_changes_the_adapters_alone_and_merged_weights_give_the_same(model):
    before, x = bits(model.network), adapters.probe(model)
    torch.manual_seed(0)
    adapted = adapters.with_lora(adapters.tower(model), x, RANK)
    start = adapted(x).detach()
    network = Classifier(adapted, Head(start.shape[1], 2), frozen=True)
    untrained = bits(network)
    parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.01)
    F.cross_entropy(network.train()(x), torch.tensor([0, 1])).backward()
    optimizer.step()

    gradients = {n: p.grad for n, p in parameters.items() if "lora_B" in n}
    assert len(gradients) == adapters.listing(adapted)["adapted"].sum()
    assert all(g.any() for g in gradients.values())
    changed = {n for n, value in bits(network).items() if value != untrained[n]}
    assert changed == set(parameters)
    assert all("lora_" in n or n.startswith("head.layers.") for n in changed)

    merged = adapters.merged(adapted)
    assert not any("lora_" in n for n, _ in merged.named_parameters())
    with torch.no_grad():
        tuned, deployed = adapted(x), merged(x)
    largest = tuned.abs().max()
    assert (tuned - start).abs().max() > 0.05 * largest
    assert (deployed - tuned).abs().max() < 1e-5 * largest
    assert bits(model.network) == before


# --- what is adapted, counted from the papers ---


def counts(model):
    adapted = adapters.with_lora(adapters.tower(model), adapters.probe(model), RANK)
    found = adapters.listing(adapted)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert found["trained"].sum() == trained
    return {row.layer: (row.adapted, row.left_out, row.trained) for row in found.itertuples()}


def test_layers_of_a_resnet_50_are_those_of_its_paper():
    """He et al. 2016, Table 1: (input, output, kernel) of its 53 convolutions, and one layer."""
    convolutions, width = [(3, 64, 7)], 64
    for blocks, inner in zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True):
        convolutions.append((width, 4 * inner, 1))  # of the first shortcut
        for _ in range(blocks):
            convolutions += [(width, inner, 1), (inner, inner, 3), (inner, 4 * inner, 1)]
            width = 4 * inner
    trained = sum(RANK * (i * k * k + o) for i, o, k in convolutions)
    assert counts(as_model("ResNet-50", Small(resnet50(), 1000))) == {
        "convolution": (53, 0, trained),
        "linear layer": (1, 0, RANK * (2048 + 1000)),
        "matrix that is no layer": (0, 1, 0),
    }


def test_layers_of_a_vit_are_those_of_its_paper():
    """Dosovitskiy et al. 2021: patches, and four layers a block, queries, keys, values fused."""
    d = 128
    block = RANK * ((d + 3 * d) + (d + d) + (d + 4 * d) + (4 * d + d))
    assert counts(models.load_model("phantom-vit")) == {
        "convolution": (1, 0, RANK * (3 * 8 * 8 + d)),
        "linear layer": (3 * 4, 0, 3 * block),
        "matrix that is no layer": (0, 2, 0),  # positions, and CLIP's projection
    }


def test_layers_of_a_swin_t_are_those_of_its_paper():
    """Liu et al. 2021, Swin-T: six layers a block, and three mergings of patches."""
    layers = [(4 * 96, 2 * 96), (8 * 96, 4 * 96), (16 * 96, 8 * 96)]
    for depth, d in zip((2, 2, 6, 2), (96, 192, 384, 768), strict=True):
        layers += depth * [*4 * [(d, d)], (d, 4 * d), (4 * d, d)]
    network = Small(swin(), 768, output=lambda y: y.pooler_output)
    assert counts(as_model("Swin-T", network, 224)) == {
        "convolution": (1, 0, RANK * (3 * 4 * 4 + 96)),
        "linear layer": (12 * 6 + 3, 0, sum(RANK * (i + o) for i, o in layers)),
        "matrix that is no layer": (0, 12 + 1, 0),  # relative positions of each block
    }


def test_layers_of_a_davit_that_cannot_be_adapted_are_listed():
    """Ding et al. 2022: 5 times two blocks, with two depthwise convolutions each."""
    found = {kind: numbers[:2] for kind, numbers in counts(small("small DaViT")).items()}
    assert found == {
        "convolution": (4, 0),  # before each stage
        "linear layer": (5 * 2 * 4, 0),
        "depthwise convolution": (0, 5 * 2 * 2),
        "matrix that is no layer": (0, 1),
    }


# --- attention whose layers are called ---


def assert_same(ours, own, x, give):
    """Equal output, and equal gradients of the input and of all parameters, which they share."""
    results = []
    for module in (own, ours):
        z = x.clone().requires_grad_()
        y = give(module, z)
        shared = [p for p in own.parameters()]
        weight = torch.arange(y.numel()).reshape(y.shape).cos()
        results.append([y, *torch.autograd.grad((y * weight).sum(), [z, *shared])])
    assert {id(p) for p in ours.parameters()} == {id(p) for p in own.parameters()}
    for expected, found in zip(*results, strict=True):
        scale = expected.abs().max().clamp_min(1)
        torch.testing.assert_close(found / scale, expected / scale, atol=1e-6, rtol=0)


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_is_torchs(batch_first):
    torch.manual_seed(0)
    own = nn.MultiheadAttention(24, 3, batch_first=batch_first)
    nn.init.normal_(own.in_proj_bias)
    nn.init.normal_(own.out_proj.bias)
    ours = adapters.Attention(own)
    x = torch.randn(2, 5, 24)
    assert_same(ours, own, x, lambda m, z: m(z, z, z, need_weights=False)[0])
    asking = torch.randn(2, 1, 24) if batch_first else torch.randn(1, 5, 24)  # as SigLIP pools
    assert_same(ours, own, x, lambda m, z: m(asking, z, z)[0])
    with pytest.raises(NotImplementedError, match="attention with a mask"):
        ours(x, x, x, attn_mask=torch.zeros(5, 5))


def test_attention_pooling_is_open_clips():
    torch.manual_seed(0)
    own = AttentionPool2d(3, 24, 4, output_dim=10)
    assert_same(adapters.AttentionPool(own), own, torch.randn(2, 24, 3, 3), lambda m, z: m(z))


def test_layers_that_are_not_called_are_refused(monkeypatch):
    model = models.load_model("phantom-resnet")
    monkeypatch.setattr(adapters, "CALLING", {})
    with pytest.raises(RuntimeError, match=r"without calling them.*attnpool.k_proj"):
        adapters.with_lora(adapters.tower(model), adapters.probe(model), RANK)


def test_adapters_without_a_gradient_are_refused():
    model = models.load_model("phantom-resnet")
    targets = ["network.visual.attnpool.q_proj", "network.visual.conv1"]
    adapted = get_peft_model(adapters.tower(model), LoraConfig(r=2, target_modules=targets))
    with pytest.raises(RuntimeError, match=r"without a gradient.*q_proj\S+$"):
        adapters.check_gradients(adapted, adapters.probe(model))


# --- gradient checkpointing ---


def gradients(network, x):
    """Gradients of the trained parameters, and bytes kept for them from the forward pass."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept = {}

    def count(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor  # alive, so no address comes twice
        return tensor

    torch.manual_seed(0)  # of stochastic depth
    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        loss = network(x).square().sum()
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    size = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in own)
    return dict(zip(trained, found, strict=True)), size


@pytest.mark.parametrize("strategy", ["LoRA", "full"])
@pytest.mark.parametrize("name", ["phantom-vit", "small ViT", "small DaViT", "small Swin"])
def test_recomputed_activations_give_the_same_gradients_from_less_memory(name, strategy):
    model = load(name)
    x = adapters.probe(model)
    results = []
    for recompute in (False, True):
        tower = adapters.tower(model)
        if recompute:
            adapters.recompute_activations(tower)
        if strategy == "full":
            results.append(gradients(tower.train(), x))
            continue
        torch.manual_seed(1)
        adapted = adapters.with_lora(tower, x, RANK)
        with torch.no_grad():  # so that both factors of the updates get gradients
            for n, p in adapted.named_parameters():
                if "lora_B" in n:
                    p.normal_(std=0.1)
        results.append(gradients(adapted.eval(), x))
    (expected, all_kept), (found, kept) = results
    assert set(found) == set(expected)
    for n, gradient in expected.items():
        assert torch.equal(found[n], gradient), n
    assert kept < 0.7 * all_kept


def test_a_recomputing_tower_merges_to_what_it_gives():
    """The copy of a block runs its own weights."""
    model = models.load_model("phantom-vit")
    tower, x = adapters.tower(model), adapters.probe(model)
    adapters.recompute_activations(tower)
    adapted = adapters.with_lora(tower, x, RANK)
    with torch.no_grad():
        for p in adapted.parameters():
            if p.requires_grad:
                p.normal_(std=0.1)
        merged, expected = adapters.merged(adapted), adapted(x)
        other = copy.deepcopy(merged)
        other.network.visual.transformer.resblocks[0].mlp.c_fc.weight.zero_()
        torch.testing.assert_close(merged(x), expected, rtol=1e-4, atol=1e-4)
        assert not torch.equal(other(x), merged(x))


def test_a_resnet_cannot_recompute():
    """Though its text encoder could: nothing of that is left."""
    with pytest.raises(ValueError, match=r"no transformer blocks.*split_batches=True"):
        adapters.recompute_activations(adapters.tower(models.load_model("phantom-resnet")))
