"""The README's status table, filled from result rows between two markers.

python book/tools/readme.py           write it
python book/tools/readme.py --check   fail if README.md does not say what the rows say
python book/tools/readme.py --picture draw the README's picture (needs the weights)
"""

from __future__ import annotations

import pathlib
import sys

from sempart_core import records

ROOT = pathlib.Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- rows:begin -->", "<!-- rows:end -->"
#: column head -> (profile, dataset, metric)
COLUMNS = {
    "demo scenes, IoU": ("demo", "demo-test", "iou"),
    "VOC animals, IoU": ("photos", "voc2012_animals-saliency", "iou"),
    "Weizmann horses, IoU": ("photos", "weizmann_horses", "iou"),
    "DAVIS 2016, IoU": ("photos", "davis2016_val", "iou"),
}
#: rows and the tables that hold them
ROWS = {
    **dict.fromkeys(("TokenCut", "TokenCut, least corners"), "saliency"),
    **dict.fromkeys(
        (
            "TokenCut, least corners + bilateral",
            "shipped head, coarse",
            "shipped head, fine",
            "shipped head, coarse + bilateral",
        ),
        "head-masks",
    ),
    **dict.fromkeys(
        (
            "tuned backbone, TokenCut, least corners",
            "tuned backbone, TokenCut, least corners + bilateral",
        ),
        "tuned-masks",
    ),
}


def table() -> str:
    """Markdown table of measured rows; a missing one says so, two for one cell are an error."""
    wanted = {(*key, table, row) for key in COLUMNS.values() for row, table in ROWS.items()}
    found: dict[tuple, dict] = {}
    for r in records.load_rows():
        key = (r["profile"], r["dataset"], r["metric"], r["table"], r["row"])
        if key in wanted and key in found:
            raise SystemExit(
                f"README.md: two result rows for {' / '.join(key)} (they differ in preset, backbone or seed); "
                "keep one of them in this table"
            )
        found[key] = r
    lines = ["| method | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for row, table in ROWS.items():
        cells = []
        for key in COLUMNS.values():
            r = found.get((*key, table, row))
            cells.append(f"{r['value']:.3f} (n = {r['n']})" if r else "not run here")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(path: pathlib.Path) -> None:
    """A bundled photograph (scikit-image, CC0), its Fiedler vector, the cut and the refined cut-out."""
    import numpy as np
    from skimage import data

    from sempart_core import images, plots
    from sempart_core.backbones import load_backbone
    from sempart_core.methods import METHODS
    from sempart_core.notebook import figure_png
    from sempart_core.segment import cut, matte

    plots.style()
    photo = data.coffee()
    backbone, method = load_backbone("dinov2_vits14_reg_mri"), METHODS["tokencut"](foreground="least-corners")
    p = method.predict(backbone.extract(images.to_tensor([photo], 224)))
    y = p.eigenvectors[0, 0].reshape(p.mask.shape[1:])
    size = photo.shape[:2]
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, y.shape, strict=True))
    alpha = matte(cut(photo, method, backbone, refine="bilateral")[0])[..., None]
    cut_out = photo * alpha + 255 * (1 - alpha)
    cells = [
        photo,
        y.numpy()[np.ix_(rows, columns)],
        (photo, p.resize(size).mask[0]),
        cut_out.astype(np.uint8),
    ]
    titles = ["photograph", "second eigenvector", "normalized cut", "refined cut-out"]
    records.write_bytes(path, figure_png(plots.mask_grid([cells], columns=titles, width=9)))


def main() -> int:
    path = ROOT / "README.md"
    if "--picture" in sys.argv[1:]:
        picture(ROOT / "book" / "_assets" / "readme.png")
        return 0
    text = path.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, mark, tail = rest.partition(END)
    if not mark:
        print(f"README.md: the markers {BEGIN} and {END} are missing; put them around the table")
        return 2
    new = f"{head}{BEGIN}\n{table()}\n{END}{tail}"
    if "--check" in sys.argv[1:]:
        if new != text:
            print("README.md: its table differs from the result rows; run `python book/tools/readme.py`")
            return 1
        print("README.md says what the rows say")
        return 0
    records.write_text(path, new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
