"""Swin-T (Liu et al. 2021, arXiv:2103.14030), which MedCLIP and CXR-CLIP share: transformers' own.

Transformers 5 renamed the parameters of Swin's blocks; published checkpoints have the names of
transformers 4.
"""

from __future__ import annotations

from transformers import SwinConfig, SwinModel

# Our key, and what stands in its place in checkpoints; see cxrlib.models.recipe.Recipe.
RENAMES = (
    (r"(blocks\.\d+\.attention)\.q_proj\.", r"\1.self.query."),
    (r"(blocks\.\d+\.attention)\.k_proj\.", r"\1.self.key."),
    (r"(blocks\.\d+\.attention)\.v_proj\.", r"\1.self.value."),
    (r"(blocks\.\d+\.attention)\.o_proj\.", r"\1.output.dense."),
    (r"(blocks\.\d+\.attention)\.relative_position_bias\.", r"\1.self."),
    (r"(blocks\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"(blocks\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
)


def swin() -> SwinModel:
    """An untrained Swin-T with patches of 4 and windows of 7, for images of 224 x 224.

    Its ``last_hidden_state`` (n, 49, 768) is after the last LayerNorm, row by row from the top
    left; ``pooler_output`` (n, 768) is the mean over the 49 tokens.
    """
    config = SwinConfig(
        image_size=224,
        patch_size=4,
        embed_dim=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window_size=7,
        layer_norm_eps=1e-5,
    )
    return SwinModel(config)
