"""What tests do on the page, in the words of people."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WAIT_S = 30


def until(holds: Callable[[], Any], what: str, wait_s: float = WAIT_S) -> Any:
    """Wait until something holds, and return it."""
    end = time.monotonic() + wait_s
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"after {wait_s:g} s still not: {what}")
        time.sleep(0.05)


def address(page: Any) -> str:
    """Return the query of the address as it is now: `page.url` is that of the last event that was heard of."""
    return str(page.evaluate("() => location.search"))


def chart(page: Any, metric: str) -> Any:
    """Return the plot of a metric, painted."""
    page.locator(f".slot[data-metric='{metric}']").scroll_into_view_if_needed()
    page.wait_for_selector(
        f"article.card[data-metric='{metric}']:not([aria-busy]) .plot[data-state=ready]", timeout=WAIT_S * 1000
    )
    return page.locator(f"article.card[data-metric='{metric}'] .plot")


def axes(plot: Any) -> dict[str, Any]:
    """Return what a plot shows: place and ranges."""
    until(lambda: bool(plot.get_attribute("data-axes")), "a plot is painted")
    return dict(json.loads(plot.get_attribute("data-axes")))


def place(plot: Any, x: float, y: float | None = None) -> tuple[float, float]:
    """Return where a value lies on the screen."""
    box, at = plot.bounding_box(), axes(plot)
    across = at["left"] + (x - at["x"][0]) / (at["x"][1] - at["x"][0]) * at["width"]
    share = 0.5 if y is None else (at["y"][1] - y) / (at["y"][1] - at["y"][0])
    return box["x"] + across, box["y"] + at["top"] + share * at["height"]


def drag(page: Any, plot: Any, x0: float, x1: float, modifier: str | None = None) -> None:
    """Drag along x from a value to another."""
    (left, middle), (right, _) = place(plot, x0), place(plot, x1)
    if modifier:
        page.keyboard.down(modifier)
    page.mouse.move(left, middle)
    page.mouse.down()
    page.mouse.move((left + right) / 2, middle)
    page.mouse.move(right, middle)
    page.mouse.up()
    if modifier:
        page.keyboard.up(modifier)


def settled(page: Any, plot: Any, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    """Wait until a plot shows what it should, and nothing is being fetched; return its axes."""
    until(lambda: holds(axes(plot)), what)
    calm(page)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return axes(plot)


def calm(page: Any) -> None:
    """Wait until no chart fetches."""
    until(lambda: page.locator("article.card[aria-busy]").count() == 0, "no chart fetches")


def tooltip(page: Any, plot: Any, x: float, y: float | None = None) -> dict[str, dict[str, str]]:
    """Point at a value and return what the tooltip says: by name of the line, its parts."""
    page.mouse.move(*place(plot, x, y))
    page.mouse.move(*(v + 0.4 for v in place(plot, x, y)))
    until(lambda: page.locator("#tooltip").is_visible(), "the tooltip is shown")
    return dict(
        page.evaluate("""() => {
      const found = {};
      for (const name of document.querySelectorAll('#tooltip .tooltip-name')) {
        const parts = {};
        for (let at = name.nextElementSibling; at && !at.matches('.swatch'); at = at.nextElementSibling) {
          parts[at.dataset.part] = at.dataset.value ?? at.textContent;
        }
        found[name.textContent] = {...parts, x: document.querySelector('#tooltip .tooltip-head').dataset.x};
      }
      return found;
    }""")
    )


def pixels(plot: Any) -> str:
    """Return the picture of a plot, as text to compare."""
    return str(plot.evaluate("plot => plot.querySelector('canvas').toDataURL()"))


def has_colour_near(plot: Any, x: float, y: float, colour: str, radius: int = 3) -> bool:
    """Return whether a pixel of a colour lies within some pixels of a value."""
    at, box = axes(plot), plot.bounding_box()
    px, py = place(plot, x, y)
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    assert at
    return bool(
        plot.evaluate(
            """(plot, [x, y, wanted, radius]) => {
          const {data} = plot.querySelector('canvas').getContext('2d')
            .getImageData(Math.round(x) - radius, Math.round(y) - radius, 2 * radius + 1, 2 * radius + 1);
          for (let i = 0; i < data.length; i += 4) {
            if (data[i + 3] > 200 && wanted.every((v, k) => Math.abs(data[i + k] - v) <= 6)) return true;
          }
          return false;
        }""",
            [px - box["x"], py - box["y"], wanted, radius],
        )
    )


def rows(page: Any) -> list[str]:
    """Return the names of the rows in view, from top to bottom."""
    return list(
        page.evaluate("""() => [...document.querySelectorAll('.row:not([hidden]):not(.waiting)')]
      .sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)
      .map(row => row.querySelector('.row-name').textContent)""")
    )


def watch_cpu(page: Any) -> Callable[[], float]:
    """Return a function that tells the CPU seconds of the page's main thread since it was last asked."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    last = 0.0

    def spent() -> float:
        nonlocal last
        now = next(
            one["value"] for one in session.send("Performance.getMetrics")["metrics"] if one["name"] == "TaskDuration"
        )
        last, before = now, last
        return float(now - before)

    return spent


class Proxy:
    """Shows a server below `/proxy/6006/`, as a notebook's proxy does."""

    def __init__(self, target: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                assert self.path.startswith("/proxy/6006/"), self.path
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                there = HTTPConnection("127.0.0.1", target, timeout=30)
                headers = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() not in ("host", "connection", "origin")
                }
                there.request(
                    self.command, self.path.removeprefix("/proxy/6006"), body, headers | {"Host": f"127.0.0.1:{target}"}
                )
                answer = there.getresponse()
                content = answer.read()
                there.close()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = _pass

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def open_watched(page: Any, address: str) -> None:
    """Open an address with a page that is open, and write down what is drawn from then on; see `strokes`."""
    page.evaluate(
        """async query => {
          const proto = CanvasRenderingContext2D.prototype;
          for (const name of ['beginPath', 'moveTo', 'lineTo', 'stroke', 'clearRect']) {
            const own = proto[name];
            proto[name] = function (...given) {
              const {canvas} = this;
              canvas.strokes ??= [];
              if (name === 'clearRect') canvas.strokes = [];
              if (name === 'beginPath') canvas.path = [];
              if (name === 'moveTo' || name === 'lineTo') canvas.path.push([name, ...given]);
              if (name === 'stroke') {
                canvas.strokes.push({
                  colour: this.strokeStyle, alpha: this.globalAlpha, width: this.lineWidth, path: canvas.path,
                });
              }
              own.apply(this, given);
            };
          }
          const base = document.querySelector('script[type=module]').src.replace(/main\\.js$/, '');
          const {store} = await import(base + 'core/state.js');
          store.open(query);
        }""",
        address,
    )


def strokes(plot: Any, colour: str) -> list[dict[str, Any]]:
    """Return what a plot's lines of a colour were drawn as: alpha, width, and the path in pixels of the plot."""
    return list(
        plot.evaluate(
            """(plot, colour) => plot.querySelector('canvas').strokes
              .filter(one => one.colour === colour && one.path.length)""",
            colour,
        )
    )


def set_state(page: Any, **fields: Any) -> None:
    """Change fields of the page's state, as its controls do."""
    page.evaluate(
        """async fields => {
          const base = document.querySelector('script[type=module]').src.replace(/main\\.js$/, '');
          (await import(base + 'core/state.js')).store.set(fields);
        }""",
        fields,
    )
