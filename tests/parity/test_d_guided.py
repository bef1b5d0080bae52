"""Guided filter of segmentation-tricks: grey, colour, its own variant in float32, and box sums."""

import re

import numpy as np
import pytest
import torch

from sempart_core.guided import box_sum, guided_filter, to_guide


@pytest.fixture(scope="module")
def arrays(vectors):
    return vectors("d_guided_filter")


def _tensors(arrays, tag, dtype):
    image = torch.from_numpy(arrays[f"{tag}_image"]).permute(2, 0, 1)[None].float() / 255
    masks = {k: torch.from_numpy(arrays[f"{tag}_{k}"])[None, None].to(dtype) for k in ("soft", "hard")}
    return image.to(dtype), masks


def test_every_stored_output(arrays):
    checked = 0
    for key, want in arrays.items():
        if match := re.fullmatch(r"(.+)_(my|gray64|color64)_r(\d+)_e([\d.e-]+?)(?:_(soft|hard))?", key):
            tag, kind, radius, eps, which = match.groups()
            dtype = torch.float32 if kind == "my" else torch.float64
            image, masks = _tensors(arrays, tag, dtype)
            guide = to_guide(image, "color" if kind == "color64" else "mean")
            eps = 1e-3 if eps == "1e3" else float(eps)  # the name of my_* drops the sign of 1e-3
            ours = guided_filter(guide, masks[which or "soft"], int(radius), eps)[0, 0].numpy()
            assert np.abs(ours - want).max() < (1e-4 if kind == "my" else 1e-9), key
            checked += 1
        elif match := re.fullmatch(r"(.+)_boxsum_r(\d+)", key):
            _, masks = _tensors(arrays, match[1], torch.float64)
            assert np.abs(box_sum(masks["soft"], int(match[2]))[0, 0].numpy() - want).max() < 1e-9, key
            checked += 1
    assert checked == sum(not k.endswith(("_image", "_soft", "_hard")) or "_my_" in k for k in arrays)
