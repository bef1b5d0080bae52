"""The built book in a headless Chromium: outside requests, console errors, phone width, accessibility.

python book/tools/browser_audit.py [_build/html] [--axe axe.min.js] [--shots FOLDER] [--pages WORD ...]

Each page is opened at 1280 and 390 pixels, light and dark. axe-core is not part of the repository:
``npm pack axe-core`` brings ``axe.min.js``. Not part of ``make test``; where there is no Chromium it says
so and ends well.
"""

from __future__ import annotations

import argparse
import base64
import functools
import http.server
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

WIDTHS, THEMES = (1280, 390), ("light", "dark")
AXE = "axe.run(document, {resultTypes: ['violations']}).then(r => JSON.stringify(r.violations.map(v => [v.impact, v.id, v.nodes.slice(0, 2).map(n => n.html.slice(0, 120))])))"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        """Say nothing."""


class Browser:
    """A page of a headless Chromium, spoken to by its DevTools protocol."""

    def __init__(self, program: str, folder: str) -> None:
        import websocket  # comes with Jupyter Server

        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-port=0",
            "--no-first-run",
        ]
        flags += ["--disable-background-networking", "--disable-component-update", "--remote-allow-origins=*"]
        self.process = subprocess.Popen(
            [program, *flags, f"--user-data-dir={folder}", "about:blank"],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        port = None
        for line in self.process.stderr:
            if found := re.search(r"ws://[^:]+:(\d+)/", line):
                port = found.group(1)
                break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            page = next(t for t in json.load(answer) if t["type"] == "page")
        self.socket = websocket.create_connection(page["webSocketDebuggerUrl"], timeout=60)
        self.count, self.events = 0, []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params) -> dict:
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.count:
                return message.get("result", {})
            self.events.append(message)

    def evaluate(self, code: str):
        answer = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        return answer.get("result", {}).get("value")

    def open(self, url: str, width: int, theme: str) -> list[dict]:
        """Load a page, wait until its formulas are set, return what happened meanwhile."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.evaluate(f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')")
        self.events.clear()
        self.call("Page.navigate", url=url)
        for _ in range(100):
            time.sleep(0.1)
            ready = "document.readyState === 'complete' && location.href.startsWith('http')"
            if self.evaluate(ready):
                break
        self.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => 1) : 1")
        time.sleep(0.2)
        self.evaluate("1")
        return list(self.events)

    def shot(self, path: pathlib.Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(10)


def faults(events: list[dict], host: str) -> list[str]:
    """Outside requests, exceptions and errors among the events of one page."""
    out = []
    for e in events:
        p = e.get("params", {})
        if e["method"] == "Network.requestWillBeSent":
            url = p["request"]["url"]
            if not url.startswith((host, "data:", "blob:", "about:")):
                out.append(f"asks {url[:90]}")
        elif e["method"] == "Runtime.exceptionThrown":
            details = p["exceptionDetails"]
            out.append(f"exception {details.get('exception', {}).get('description', details['text'])[:120]}")
        elif (
            e["method"] == "Log.entryAdded"
            and p["entry"]["level"] == "error"
            and "favicon" not in p["entry"].get("url", "")
        ):
            out.append(f"error {p['entry']['text'][:90]} {p['entry'].get('url', '')[-60:]}")
    return out


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("site", nargs="?", default="_build/html", type=pathlib.Path)
    ap.add_argument("--axe", type=pathlib.Path, help="axe.min.js")
    ap.add_argument("--shots", type=pathlib.Path, help="folder for screenshots")
    ap.add_argument("--pages", nargs="*", default=[], help="only pages whose path contains one of these")
    args = ap.parse_args()
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        print("browser audit: no Chromium here, nothing done")
        return 0
    site = args.site.resolve()
    pages = [
        p.relative_to(site).as_posix()
        for p in sorted(site.rglob("*.html"))
        if not {"_static", "_modules"} & set(p.parts) and p.name not in ("genindex.html", "py-modindex.html")
    ]
    pages = [p for p in pages if not args.pages or any(w in p for w in args.pages)]
    handler = functools.partial(Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host, bad = f"http://127.0.0.1:{server.server_port}/", []
    if args.shots:
        args.shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(program, folder)
        browser.open(host + pages[0], 1280, "light")
        for page in pages:
            for width in WIDTHS:
                for theme in THEMES:
                    found = faults(browser.open(host + page, width, theme), host)
                    wide = browser.evaluate("document.documentElement.scrollWidth - window.innerWidth")
                    if wide and wide > 0:
                        found.append(f"{wide} pixels wider than the window")
                    if args.axe and width == WIDTHS[0]:
                        browser.evaluate(args.axe.read_text(encoding="utf-8") + ";1")
                        for impact, rule, where in json.loads(browser.evaluate(AXE) or "[]"):
                            found.append(f"axe {impact} {rule}: {' '.join(where)}")
                    if args.shots:
                        browser.shot(args.shots / f"{page.replace('/', '_')}-{width}-{theme}.png")
                    bad += [f"{page} {width} {theme}: {f}" for f in found]
        browser.close()
    server.shutdown()
    print("\n".join(bad))
    print(
        f"browser audit: {len(pages)} pages, {len(bad)} problems"
        + ("" if args.axe else " (axe-core not given)")
    )
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
