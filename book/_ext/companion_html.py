"""Repairs of the theme's pages that make them pass axe-core; each names the rule it serves."""

from __future__ import annotations

import pathlib
import re

REPAIRS = (
    # region: logo and search stand outside all landmarks
    (
        r'<(div|dialog)([^>]*class="bd-sidebar-primary[^"]*"[^>]*)>',
        r'<\1\2 role="complementary" aria-label="Book">',
    ),
    # label-content-name-mismatch: the label leaves out what the button shows
    (r'(<button class="[^"]*search-button-field[^"]*"[^>]*?) aria-label="Search"', r"\1"),
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    (r'<span class="search-button__kbd-shortcut">', '<span class="search-button__kbd-shortcut" aria-hidden="true">'),
    (r'(<i class="theme-switch [^>]*?)\s+title="[^"]*"', r'\1 aria-hidden="true"'),
    # aria-required-children, aria-deprecated-role: a list needs list items
    (r'role="doc-biblioentry"', 'role="listitem"'),
)  # fmt: skip


def repair(text: str) -> str:
    for pattern, new in REPAIRS:
        text = re.sub(pattern, new, text)
    return text


def repair_pages(app, exception) -> None:
    """On ``build-finished``."""
    if exception is not None or app.builder.format != "html":
        return
    for p in pathlib.Path(app.outdir).rglob("*.html"):
        old = p.read_text(encoding="utf-8")
        if (new := repair(old)) != old:
            p.write_text(new, encoding="utf-8")
