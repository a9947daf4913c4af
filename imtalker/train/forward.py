"""The renderer's forward pass as training needs it: batched over sources, and differentiable throughout."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.attention import join_heads, to_map, to_tokens
from ..models.backend import attend_and_match
from ..models.renderer import Renderer


def render(
    renderer: Renderer,
    features: tuple[Tensor, ...],
    identity: Tensor,
    source_latent: Tensor,
    driving_latent: Tensor,
    asked: Sequence[Tensor] | None = None,
) -> Tensor | tuple[Tensor, list[Tensor]]:
    """Frames (B,3,output_size,output_size) in 0..1, every sample with a source of its own (spec: Renderer 3 to 6).

    features: the sources' maps, coarse to fine, (B,C,S,S) each, and identity (B,identity_size): what
    `renderer.identity_encoder` gives. source_latent, driving_latent (B,motion_size): of `renderer.motion_encoder`, not
    adapted. With `asked`, indices (Q,) of cells of the frame for each attention level, also where these look, (B,Q,S*S)
    averaged over heads: columns are cells of the source, row-major, and a row sums to 1.

    In evaluation mode this is `Renderer.forward` for each sample. Gradients reach everything but the choice of the
    cell that the levels without attention copy from: there they flow through what is copied.
    """
    both = torch.cat([source_latent, driving_latent])
    decoded = renderer.motion_decoder(renderer.adapter(both, identity.repeat(2, 1)))
    reference, driving = zip(*(maps.chunk(2) for maps in decoded))
    aligned, seen = transfer(renderer, features, reference, driving, asked)
    frames = renderer.synthesis(aligned)
    return frames if asked is None else (frames, seen)


def transfer(
    renderer: Renderer,
    features: tuple[Tensor, ...],
    reference: tuple[Tensor, ...],
    driving: tuple[Tensor, ...],
    asked: Sequence[Tensor] | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """`MotionTransfer` with a reference for each sample: the rearranged maps, and where the asked cells look."""
    levels = [level.cross for level in renderer.transfer.levels]
    aligned, seen = [], []
    for number, level in enumerate(levels):
        q, k = level.queries(to_tokens(driving[number])), level.keys(to_tokens(reference[number]))
        v = level.values(to_tokens(features[number]))
        aligned.append(to_map(level.proj(join_heads(F.scaled_dot_product_attention(q, k, v)))))
        if asked is not None:
            seen.append(attention(q[:, :, asked[number]], k))
        if number == len(levels) - 1:
            match = best_match(q, k, v)
    side = aligned[-1].shape[-1]
    for fine in features[len(levels) :]:
        cells = to_tokens(F.avg_pool2d(fine, fine.shape[-1] // side))
        aligned.append(to_map(cells.gather(1, match[..., None].expand(-1, -1, cells.shape[-1]))))
    return aligned, seen


def attention(q: Tensor, k: Tensor) -> Tensor:
    """The weights of attention (B,heads,N,d) over (B,heads,M,d), averaged over heads: (B,N,M) in float32."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).float().softmax(dim=-1).mean(dim=1)


@torch.no_grad()
def best_match(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The key with the largest head-averaged weight for each query, (B,N), without the map of all weights."""
    each = ((x[None] for x in parts) for parts in zip(q, k, v))
    return torch.cat([attend_and_match(*one)[1] for one in each])
