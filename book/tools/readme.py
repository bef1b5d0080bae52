"""The README's status table, filled from result rows between two markers.

python book/tools/readme.py           write it
python book/tools/readme.py --check   fail if README.md does not say what the rows say
"""

from __future__ import annotations

import pathlib
import sys

from sempart_core import records

ROOT = pathlib.Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- rows:begin -->", "<!-- rows:end -->"
#: column head -> (profile, dataset, metric, table)
COLUMNS = {
    "demo scenes, IoU": ("demo", "demo-test", "iou", "saliency"),
    "VOC animals, IoU": ("photos", "voc2012_animals-saliency", "iou", "saliency"),
    "Weizmann horses, IoU": ("photos", "weizmann_horses", "iou", "saliency"),
    "DAVIS 2016, IoU": ("photos", "davis2016_val", "iou", "saliency"),
}
ROWS = ("DINO-seg", "LOST", "TokenCut", "TokenCut, least corners", "Deep Spectral (code)")


def table() -> str:
    """Markdown table of measured rows; a missing one says so."""
    found = {(r["profile"], r["dataset"], r["metric"], r["table"], r["row"]): r for r in records.load_rows()}
    lines = ["| method | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for row in ROWS:
        cells = []
        for key in COLUMNS.values():
            r = found.get((*key, row))
            cells.append(f"{r['value']:.3f} (n = {r['n']})" if r else "not run here")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    path = ROOT / "README.md"
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
