"""What the page costs in a real browser: CPU of its main thread, walls, memory, requests. Each takes an open page.

CPU is what Chromium counts of the main thread in `threadTicks`: other work on the machine is not in it. A wall is told
by the page's own clock, from the act to the picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

WAIT_S = 60
_FRAME = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
# Charts that are in the window, and whether each shows what it should.
_SETTLED = """() => {
  const charts = [...document.querySelectorAll('.card .plot')].filter(plot => plot.dataset.state !== 'waiting');
  const busy = document.querySelector('article.card[aria-busy]');
  return charts.length && !busy && charts.every(plot => plot.dataset.state === 'ready') ? charts.length : 0;
}"""


def until(holds: Callable[[], Any], what: str, wait_s: float = WAIT_S) -> Any:
    """Wait until something holds, and return it."""
    end = time.monotonic() + wait_s
    while not (found := holds()):
        if time.monotonic() > end:
            raise AssertionError(f"after {wait_s:g} s still not: {what}")
        time.sleep(0.02)
    return found


class Cpu:
    """Seconds of the page's main thread, between two calls."""

    def __init__(self, page: Any) -> None:
        self._session = page.context.new_cdp_session(page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self._last = self._now()

    def _now(self) -> float:
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

    def __call__(self) -> float:
        """Return the seconds since the last call."""
        now, before = self._now(), self._last
        self._last = now
        return now - before


def _settle(page: Any, charts: int = 1) -> None:
    until(lambda: page.evaluate(_SETTLED) >= charts, f"{charts} charts are painted")
    page.evaluate(_FRAME)


def load(page: Any, address: str, *, charts: int) -> dict[str, float]:
    """Open an address: CPU and wall until so many charts are painted, heap after the garbage is gone."""
    cpu = Cpu(page)
    began = time.perf_counter()
    page.goto(address)
    _settle(page, charts)
    wall = time.perf_counter() - began
    heap = page.evaluate("() => { gc(); return performance.memory.usedJSHeapSize }")
    return {"task_ms": cpu() * 1e3, "wall_ms": wall * 1e3, "heap_mb": heap / 1e6}


def zoom_redraw(page: Any, *, times: int = 5) -> float:
    """Zoom the first chart in and out, and return the ms of CPU of one redraw."""
    box = page.locator(".card .plot").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.evaluate(_FRAME)
    cpu, spent = Cpu(page), []
    for _ in range(times):
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2)
        page.evaluate(_FRAME)
        cpu()
        page.mouse.up()  # the release zooms
        page.evaluate(_FRAME)
        _settle(page)
        spent.append(cpu())
        page.mouse.dblclick(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        _settle(page)
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.evaluate(_FRAME)
    return min(spent) * 1e3


def hover(page: Any, *, moves: int = 30) -> float:
    """Move the pointer over the first chart, and return the ms of CPU of one move."""
    box = page.locator(".card .plot").first.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.evaluate(_FRAME)
    cpu = Cpu(page)
    for k in range(moves):
        page.mouse.move(box["x"] + 60 + (box["width"] - 80) * k / moves, box["y"] + 60 + k % 7)
        page.evaluate("() => new Promise(requestAnimationFrame)")
    return cpu() / moves * 1e3


def toggle_run(page: Any, *, times: int = 5) -> dict[str, float]:
    """Take a run out of the charts: until all in view are painted again, by the page's clock; best of several."""
    walls, cpu, spent = [], Cpu(page), []
    for _ in range(times):
        cpu()
        walls.append(
            page.evaluate(
                """async () => {
                  const charts = [...document.querySelectorAll('.card .plot[data-state=ready]')].filter(plot => {
                    const {top, bottom} = plot.getBoundingClientRect();
                    return bottom > 0 && top < innerHeight;
                  });
                  const names = charts.map(plot => plot.getAttribute('aria-label'));
                  const began = performance.now();
                  document.querySelector('.row:not([hidden]) .row-eye').click();
                  for (;;) {
                    await new Promise(requestAnimationFrame);
                    if (charts.every((plot, k) => plot.getAttribute('aria-label') !== names[k])) break;
                    if (performance.now() - began > 20000) throw new Error('not painted again');
                  }
                  return performance.now() - began;
                }"""
            )
        )
        spent.append(cpu())
        _settle(page)
    return {"wall_ms": min(walls), "task_ms": min(spent) * 1e3}


_ROWS = (
    """() => [...document.querySelectorAll('.row:not([hidden]):not(.waiting)')].map(row => row.textContent).join()"""
)


def first_rows(page: Any, address: str) -> dict[str, float]:
    """Open a table: CPU and wall until rows are there."""
    cpu = Cpu(page)
    began = time.perf_counter()
    page.goto(address)
    until(lambda: page.evaluate(_ROWS), "rows")
    wall = time.perf_counter() - began
    page.evaluate(_FRAME)
    return {"task_ms": cpu() * 1e3, "wall_ms": wall * 1e3}


def scroll(page: Any, *, steps: int = 40) -> dict[str, float]:
    """Scroll the table by 400 px at a time: CPU of one, and the most elements that there were anywhere."""
    table = page.locator(".table")
    count = "() => document.querySelectorAll('*').length"
    cpu, elements = Cpu(page), 0
    spent = 0.0
    height = table.evaluate("table => table.scrollHeight")
    for k in range(steps):
        cpu()
        table.evaluate("(table, top) => { table.scrollTop = top; }", 400 * (k + 1))
        page.evaluate(_FRAME)
        spent += cpu()
        elements = max(elements, page.evaluate(count))
    for top in (height / 2, height):
        table.evaluate("(table, top) => { table.scrollTop = top; }", top)
        until(lambda: page.locator(".row.waiting:not([hidden])").count() == 0, "rows there")
        elements = max(elements, page.evaluate(count))
    table.evaluate("table => { table.scrollTop = 0; }")
    page.evaluate(_FRAME)
    return {"task_ms": spent / steps * 1e3, "elements": elements}


def sort_and_find(page: Any, *, column: str, expression: str) -> dict[str, float]:
    """Sort the table by a column, and look for names: until other rows are shown, wall and CPU; best of several."""
    found = {"sort_ms": 1e9, "sort_task_ms": 1e9, "find_ms": 1e9, "find_task_ms": 1e9}
    cpu = Cpu(page)
    changed = """async act => {
      const rows = () => [...document.querySelectorAll('.row:not([hidden])')].map(row => row.textContent).join();
      const before = rows();
      const began = performance.now();
      if (act.click) {
        [...document.querySelectorAll('.head-name')].find(one => one.textContent.startsWith(act.click)).click();
      } else {
        const box = document.querySelector('input.names');
        box.value = act.type;
        box.dispatchEvent(new Event('input', {bubbles: true}));
      }
      for (;;) {
        await new Promise(requestAnimationFrame);
        if (rows() !== before) return performance.now() - began;
        if (performance.now() - began > 20000) throw new Error('the rows stay as they were');
      }
    }"""
    for _ in range(4):
        cpu()
        found["sort_ms"] = min(found["sort_ms"], page.evaluate(changed, {"click": column}))
        found["sort_task_ms"] = min(found["sort_task_ms"], cpu() * 1e3)
    with page.expect_response(lambda answer: "columns=name&" in answer.url) as names:
        page.get_by_label("Search names of runs").focus()  # as whoever is about to type
    names.value.finished()
    for k in range(4):
        cpu()
        found["find_ms"] = min(found["find_ms"], page.evaluate(changed, {"type": f"{expression}{k}"}))
        found["find_task_ms"] = min(found["find_task_ms"], cpu() * 1e3)
        page.evaluate(changed, {"type": ""})
    return found


def release_to_painted(page: Any, *, times: int = 5) -> float:
    """Drag over a part of the first chart: ms from the release to all charts painted with what the server sent."""
    walls = []
    box = page.locator(".card .plot").first.bounding_box()
    for k in range(times):
        page.mouse.move(box["x"] + box["width"] * (0.3 + 0.02 * k), box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * (0.6 + 0.02 * k), box["y"] + 50)
        page.evaluate("""() => {
          addEventListener('pointerup', () => {
            const began = performance.now();
            const done = () => {
              const busy = document.querySelector('article.card[aria-busy]');
              if (busy) return requestAnimationFrame(done);
              window.took = performance.now() - began;
            };
            setTimeout(done, 0); // after the page's own listeners
          }, {once: true, capture: true});
          window.took = 0;
        }""")
        page.mouse.up()
        walls.append(until(lambda: page.evaluate("() => window.took"), "painted"))
        page.mouse.dblclick(box["x"] + box["width"] / 2, box["y"] + 50)
        _settle(page)
    return min(walls)


class Traffic:
    """Bytes that came over the network, between two calls."""

    def __init__(self, page: Any) -> None:
        self.bytes = 0
        self._session = page.context.new_cdp_session(page)
        self._session.on("Network.loadingFinished", self._note)
        self._session.send("Network.enable")

    def _note(self, event: dict[str, Any]) -> None:
        self.bytes += int(event["encodedDataLength"])

    def __call__(self) -> int:
        """Return the bytes since the last call."""
        self.bytes, found = 0, self.bytes
        return found


_END = """() => {
  const plots = [...document.querySelectorAll('.plot[data-axes]')];
  return Math.max(0, ...plots.map(plot => JSON.parse(plot.dataset.axes).x[1]));
}"""


def live(page: Any, log: Callable[[int], None], first: int, *, ticks: int) -> dict[str, float]:
    """Log a row a second: until it is seen, bytes and CPU a second; then the same while nothing happens."""
    cpu, traffic = Cpu(page), Traffic(page)
    seen: list[float] = []
    spent: list[float] = []
    page.wait_for_timeout(1500)
    traffic()
    cpu()
    began = time.perf_counter()
    for step in range(first, first + ticks):
        log(step)
        logged = time.perf_counter()
        until(lambda step=step: page.evaluate(_END) == step, f"step {step} is shown")  # type: ignore[misc]
        seen.append(time.perf_counter() - logged)
        page.wait_for_timeout(max(0.0, 1000 - seen[-1] * 1e3))
        spent.append(cpu())
    wall = time.perf_counter() - began
    found = {
        "seen_ms": sorted(seen)[len(seen) // 2] * 1e3,
        "task_ms": sorted(spent)[len(spent) // 2] * 1e3,
        "least_task_ms": min(spent) * 1e3,
        "bytes_s": traffic() / wall,
    }
    page.wait_for_timeout(9000)  # the page calms down
    traffic()
    began = time.perf_counter()
    page.wait_for_timeout(6000)
    found["idle_bytes_s"] = traffic() / (time.perf_counter() - began)
    return found


def many_ticks(page: Any, log: Callable[[int], None], first: int, *, ticks: int) -> dict[str, float]:
    """Let the page ask again and again, each time with a row more: how much its heap grows."""
    heap = "() => { gc(); gc(); return performance.memory.usedJSHeapSize }"
    before = 0.0
    for step in range(first, first + ticks):
        log(step)
        page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")  # it asks at once
        until(lambda step=step: page.evaluate(_END) == step, f"step {step} is shown")  # type: ignore[misc]
        if step == first + 9:
            before = page.evaluate(heap)
    return {"grown_mb": (page.evaluate(heap) - before) / 1e6, "ticks": ticks}
