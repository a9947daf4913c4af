"""Published names of weights and ours. Our files hold the published names, without prefix."""

import re

# (published, ours); each part is unique, so plain replacement works in both directions
RENDERER = [
    ("dense_feature_encoder.initial_conv.", "identity_encoder.stem."),
    ("dense_feature_encoder.down_block_0.", "identity_encoder.halvings.0."),
    ("dense_feature_encoder.down_blocks.", "identity_encoder.down."),
    ("dense_feature_encoder.", "identity_encoder."),
    ("latent_token_encoder.", "motion_encoder."),
    ("latent_token_decoder.style_conv_layers.", "motion_decoder.layers."),
    ("latent_token_decoder.", "motion_decoder."),
    ("frame_decoder.upconv_blocks.", "synthesis.up."),
    ("frame_decoder.resblocks.", "synthesis.merge."),
    ("frame_decoder.transformer_blocks.", "synthesis.attention."),
    ("frame_decoder.final_conv.", "synthesis.head."),
    ("imt.", "transfer.levels."),
    ("adapt.", "adapter."),
    (".block_efc.", ".cross."),
    (".feat_res_block1.", ".res1."),
    (".feat_res_block2.", ".res2."),
    (".norm.norm.", ".norm."),
    (".linear_layers.", ".mlp.layers."),
    (".final_linear.", ".mlp.last."),
]
GENERATOR = [
    ("fmt.x_embedder.proj.", "flow.input."),
    ("fmt.c_embedder.", "flow.condition."),
    ("fmt.t_embedder.", "flow.time."),
    ("fmt.decoder.", "flow.head."),
    ("fmt.", "flow."),
]
PAIRS = {"renderer": RENDERER, "generator": GENERATOR}

# constants that follow from the configuration, and weights that the method does not use
UNUSED = re.compile(
    r"(^|\.)(kernel|attn_mask|relative_position_index|alignment_mask|inv_freq|num_batches_tracked|masked_spec_embed)$"
    r"|\.noise\.weight$|^dense_feature_encoder\.equalconv\."
)


def to_ours(kind: str, name: str) -> str:
    """Published name without prefix -> name in our modules."""
    for published, ours in PAIRS[kind]:
        name = name.replace(published, ours)
    # the old spelling of torch's weight norm
    name = re.sub(r"\.conv\.weight_g$", ".conv.parametrizations.weight.original0", name)
    return re.sub(r"\.conv\.weight_v$", ".conv.parametrizations.weight.original1", name)


def to_published(kind: str, name: str) -> str:
    """Inverse of `to_ours`, with the new spelling of weight norm."""
    for published, ours in PAIRS[kind]:
        name = name.replace(ours, published)
    return name
