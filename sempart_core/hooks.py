"""What a network computes on the way: blocks' outputs and the inside of attentions, read by hooks.

Works on timm's vision transformers and ResNets without changing them.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def autocast(device: torch.device, amp: torch.dtype | None) -> contextlib.AbstractContextManager:
    """Half precision on CUDA (bfloat16 where ``amp`` is None and the device has it), nothing elsewhere."""
    if device.type != "cuda" or amp == torch.float32:
        return contextlib.nullcontext()
    if amp is None:
        amp = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.autocast("cuda", dtype=amp)


def stages(model: nn.Module) -> Sequence[nn.Module]:
    """Blocks of a vision transformer, the four stages of a ResNet."""
    if hasattr(model, "blocks"):
        return model.blocks
    return [model.layer1, model.layer2, model.layer3, model.layer4]


@contextlib.contextmanager
def capture(stages: Sequence[nn.Module], tokens: set[int], inner: set[int]) -> Iterator[dict]:
    """Hooks that record outputs of blocks and inputs of attentions; gone afterwards, even on error.

    Yields a dictionary filled by the next forward pass: ``("out", b)`` output of block ``b``,
    ``("attn", b)`` pair of the normed input of its attention and its rotation (None without RoPE).
    """
    seen, handles = {}, []

    def out(b, module, args, result):
        seen["out", b] = result

    def attn(b, module, args, kwargs):
        seen["attn", b] = (args[0], kwargs.get("rope"))

    try:
        for b in tokens:
            handles.append(stages[b].register_forward_hook(functools.partial(out, b)))
        for b in inner:
            hook = functools.partial(attn, b)
            handles.append(stages[b].attn.register_forward_pre_hook(hook, with_kwargs=True))
        yield seen
    finally:
        for h in handles:
            h.remove()


def project(attn: nn.Module, x: Tensor) -> Tensor:
    """``B x T x 3 x heads x d`` of queries, keys, values for the normed tokens ``x``, ``B x T x C``."""
    if getattr(attn, "q_bias", None) is None:
        qkv = attn.qkv(x)
    else:  # timm's EVA keeps the bias apart and bypasses the module, so a hook on it would see nothing
        qkv = F.linear(x, attn.qkv.weight, torch.cat((attn.q_bias, attn.k_bias, attn.v_bias)))
    return qkv.reshape(*x.shape[:2], 3, attn.num_heads, -1)


def cls_attention(attn: nn.Module, qkv: Tensor, rope: Tensor | None, prefix: int) -> Tensor:
    """``B x heads x N``: softmax of the CLS query over all keys, prefix columns dropped."""
    q, k = qkv[:, :, 0].transpose(1, 2), qkv[:, :, 1].transpose(1, 2)  # B x heads x T x d
    q, k = attn.q_norm(q[:, :, :1]).float(), attn.k_norm(k).float()
    if rope is not None:  # CLS and registers carry no position
        from timm.layers import apply_rot_embed_cat

        turned = apply_rot_embed_cat(k[:, :, prefix:], rope.float(), half=getattr(attn, "rotate_half", False))
        k = torch.cat([k[:, :, :prefix], turned], dim=2)
    return (attn.scale * q @ k.mT).softmax(-1)[:, :, 0, prefix:]
