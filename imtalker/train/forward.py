"""The renderer's forward pass for training: batched over sources, and differentiable throughout."""

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
    queries: Sequence[Tensor] | None = None,
) -> Tensor | tuple[Tensor, list[Tensor]]:
    """Renders frames (B,3,output_size,output_size) in 0..1, each sample with its own source (spec: Renderer 3 to 6).

    features, identity: the sources' maps, coarse to fine, (B,C,S,S) each, and vectors (B,identity_size), from
    `renderer.identity_encoder`. source_latent, driving_latent (B,motion_size): from `renderer.motion_encoder`, not
    adapted. queries: indices (Q,) of frame cells for each attention level; with them the attention of these cells is
    returned too, (B,Q,S*S) averaged over heads: columns are cells of the source, row-major, and each row sums to 1.

    In evaluation mode this equals `Renderer.forward` for each sample. The levels without attention copy the best match:
    gradients flow through the copied values, not through the choice of the cell.
    """
    both = torch.cat([source_latent, driving_latent])
    decoded = renderer.motion_decoder(renderer.adapter(both, identity.repeat(2, 1)))
    reference, driving = zip(*(level.chunk(2) for level in decoded))
    aligned, maps = transfer(renderer, features, reference, driving, queries)
    frames = renderer.synthesis(aligned)
    return frames if queries is None else (frames, maps)


def transfer(
    renderer: Renderer,
    features: tuple[Tensor, ...],
    reference: tuple[Tensor, ...],
    driving: tuple[Tensor, ...],
    queries: Sequence[Tensor] | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """`MotionTransfer` with one reference per sample: the aligned maps, and the attention of the query cells."""
    levels = [level.cross for level in renderer.transfer.levels]
    aligned, maps = [], []
    for number, level in enumerate(levels):
        q, k = level.queries(to_tokens(driving[number])), level.keys(to_tokens(reference[number]))
        v = level.values(to_tokens(features[number]))
        aligned.append(to_map(level.proj(join_heads(F.scaled_dot_product_attention(q, k, v)))))
        if queries is not None:
            maps.append(attention(q[:, :, queries[number]], k))
        if number == len(levels) - 1:
            match = best_match(q, k, v)
    side = aligned[-1].shape[-1]
    for fine in features[len(levels) :]:
        cells = to_tokens(F.avg_pool2d(fine, fine.shape[-1] // side))
        aligned.append(to_map(cells.gather(1, match[..., None].expand(-1, -1, cells.shape[-1]))))
    return aligned, maps


def attention(q: Tensor, k: Tensor) -> Tensor:
    """Attention weights of queries (B,heads,N,d) over keys (B,heads,M,d), averaged over heads: (B,N,M) in float32."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).float().softmax(dim=-1).mean(dim=1)


@torch.no_grad()
def best_match(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The key with the largest head-averaged weight for each query, (B,N), without building the full attention map."""
    return attend_and_match(q, k, v)[1]
