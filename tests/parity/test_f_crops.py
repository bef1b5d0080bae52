"""The window that segmentation-tricks really cuts, and how it is enlarged (vectors f)."""

import torch

from sempart_core.multiscale import crop_windows, crop_zoom


def test_the_window_of_the_public_code(vectors):
    z = vectors("f_sempart_losses")
    S = torch.from_numpy(z["S_fine"])
    h, w = S.shape[-2:]
    left = torch.from_numpy(z["crop_offsets_in"])[:, 1]  # in patches there, used as pixels
    windows = torch.stack(
        [left.new_full((2,), h // 4), left, left.new_full((2,), h // 2), left.new_full((2,), w // 2)], 1
    )
    assert torch.equal(crop_zoom(S, windows), torch.from_numpy(z["crop_mask_out"]))
    drawn = crop_windows("code", (320, 320), 500, torch.Generator().manual_seed(0))
    assert {int(drawn[:, 1].min()), int(drawn[:, 1].max())} == set(left.tolist())
    ours = crop_windows("code", (h, w), 1)
    assert torch.equal(ours[:, [0, 2, 3]], windows[:1, [0, 2, 3]])
