"""Offline audit of the built book: dead links and anchors, anything fetched from elsewhere, missing alt texts.

python book/tools/check_site.py [_build/html]
"""

from __future__ import annotations

import pathlib
import re
import sys
import urllib.parse

from bs4 import BeautifulSoup

#: tag -> attribute that makes a browser fetch something
LOADS = (
    ("script", "src"), ("img", "src"), ("iframe", "src"), ("video", "src"), ("audio", "src"), ("source", "src"),
    ("embed", "src"), ("object", "data"), ("link", "href"), ("img", "srcset"), ("form", "action"),
)  # fmt: skip
OUTSIDE = re.compile(r"^(https?:)?//")
#: link relations a browser follows by itself
FETCHED = {
    "stylesheet",
    "icon",
    "preload",
    "prefetch",
    "modulepreload",
    "preconnect",
    "dns-prefetch",
    "manifest",
}


def audit(site: pathlib.Path) -> tuple[list[str], int, int]:
    """Problems as sentences, number of pages, number of outside links (which are not followed)."""
    pages = {
        p: BeautifulSoup(p.read_text(encoding="utf-8"), "html.parser")
        for p in sorted(site.rglob("*.html"))
        if "_static" not in p.relative_to(site).parts
    }
    ids = {
        p: {t["id"] for t in s.find_all(id=True)} | {t["name"] for t in s.find_all("a", attrs={"name": True})}
        for p, s in pages.items()
    }
    bad: set[str] = set()
    outside: set[str] = set()
    for p, soup in pages.items():
        rel = p.relative_to(site)
        for tag, attr in LOADS:
            for t in soup.find_all(tag, attrs={attr: True}):
                if tag == "link" and not FETCHED & set(t.get("rel", [])):
                    continue
                if OUTSIDE.match(t[attr].strip()):
                    bad.add(f"{rel}: loads {t[attr]}")
                elif tag not in ("link", "form") and attr != "srcset" and not _exists(p, t[attr], site):
                    bad.add(f"{rel}: missing file {t[attr]}")
        for t in soup.find_all("style"):
            bad |= {f"{rel}: loads {u}" for u in _css_loads(t.get_text())}
        for t in soup.find_all(style=True):
            bad |= {f"{rel}: loads {u}" for u in _css_loads(t["style"])}
        for t in soup.find_all("script"):
            text = t.get_text()
            bad |= {
                f"{rel}: a script imports {u}"
                for u in re.findall(r"\b(?:import|from)\s*\(?\s*[\"']((?:https?:)?//[^\"']+)", text)
            }
        for t in soup.find_all("img"):
            alt = t.get("alt")
            if alt is None or (not alt.strip() and t.get("role") != "presentation") or alt == t.get("src"):
                bad.add(f"{rel}: no alt text: {t.get('src', '')[:60]}")
        for t in soup.find_all(href=True):
            u = urllib.parse.urlsplit(t["href"])
            if u.scheme or u.netloc:
                outside.add(t["href"])
                continue
            if not u.path and not u.fragment:
                continue
            f = _target(p, u.path, site)
            if not f.exists():
                bad.add(f"{rel}: dead link {t['href']}")
            elif u.fragment and f in ids and urllib.parse.unquote(u.fragment) not in ids[f]:
                bad.add(f"{rel}: no anchor {t['href']}")
    for p in site.rglob("*.css"):
        bad |= {f"{p.relative_to(site)}: loads {u}" for u in _css_loads(p.read_text(encoding="utf-8"))}
    return sorted(bad), len(pages), len(outside)


def _css_loads(text: str) -> set[str]:
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    found = re.findall(r"url\(\s*[\"']?([^\"')]+)", text) + re.findall(r"@import\s+[\"']([^\"']+)", text)
    return {u for u in found if OUTSIDE.match(u.strip())}


def _target(page: pathlib.Path, path: str, site: pathlib.Path) -> pathlib.Path:
    path = urllib.parse.unquote(path)
    f = page if not path else site / path.lstrip("/") if path.startswith("/") else page.parent / path
    f = f.resolve()
    return f / "index.html" if f.is_dir() else f


def _exists(page: pathlib.Path, url: str, site: pathlib.Path) -> bool:
    u = urllib.parse.urlsplit(url)
    return bool(u.scheme) or not u.path or _target(page, u.path, site).exists()


def report(site: pathlib.Path) -> int:
    """Print the audit; 1 if anything is wrong."""
    if not (site / "index.html").exists():
        print(f"audit: no index.html in {site.name}; build the book first")
        return 1
    bad, pages, outside = audit(site.resolve())
    for line in bad:
        print(f"audit: {line}")
    print(f"audit: {pages} pages, {len(bad)} problems, {outside} outside links (not followed)")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(report(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "_build/html")))
