// The modules of the page that need no browser, by themselves: `STATIC=<folder> node --test pure.test.mjs`.

import assert from "node:assert/strict";
import test from "node:test";

const base = process.env.STATIC;
const { hash32, runColour, runDashes } = await import(`${base}/core/colour.js`);
const format = await import(`${base}/core/format.js`);
const { byName, pattern } = await import(`${base}/core/pattern.js`);
const { createStore, flag, list, number, range, text } = await import(`${base}/core/store.js`);
const { lower, padded, scale, zoomed } = await import(`${base}/chart/scale.js`);
const { ticks } = await import(`${base}/chart/ticks.js`);
const { decode, nearest, nothing, pointsOf } = await import(`${base}/chart/series.js`);
const { lonely, trace } = await import(`${base}/chart/reduce.js`);
const { arrange } = await import(`${base}/chart/layout.js`);
const { mean } = await import(`${base}/chart/groups.js`);
const { arrangeLineage, kin, NODE_WIDTH } = await import(`${base}/pages/lineage_layout.js`);
const { blobOf, columnOf, kept, rowsOf } = await import(`${base}/pages/figure_data.js`);
const { latest, union } = await import(`${base}/pages/steps.js`);
const { differs, majority, nested, same } = await import(`${base}/pages/compare_rows.js`);
const { filesApart, foldersOf, marksOf } = await import(`${base}/pages/artifact_tree.js`);
const python = await import(`${base}/pages/python.js`);
const columns = await import(`${base}/table/columns.js`);

const points = (y, x = y.map((_, i) => i)) => ({ ...nothing(), total: y.length, x: Float64Array.from(x), y: Float64Array.from(y), x0: Math.min(...x), x1: Math.max(...x) });
const view = { x: null, y: null, logX: false, logY: false, robust: false, unit: "number" };
const line = (of) => ({ key: "k", run: "r", metric: "m", label: "l", colour: "#000000", dash: [], isBaseline: false, points: of });

test("a colour follows from the id, and near ids lie far apart", () => {
  assert.equal(hash32("a"), 444641715);
  assert.equal(hash32("日本"), 4026831135);
  assert.notEqual(runColour("01936f2a7b1c7e00a1b2c3d4e5f60718"), runColour("01936f2a7b1c7e00a1b2c3d4e5f60719"));
  assert.match(runColour("x", "dark"), /^#[0-9a-f]{6}$/);
  const dashes = runDashes([8, 7, 6, 5, 4, 3, 2, 1].map((n) => `run-${n}`));
  assert.deepEqual([...dashes].filter(([, dash]) => dash.length).map(([id]) => id), ["run-7"]);
});

test("numbers are short for people and exact for machines", () => {
  assert.deepEqual([0, 1234567, 0.000012345, 1e9, -0.5, NaN, Infinity].map((v) => format.short(v)), ["0", "1,234,567", "1.234e-5", "1e9", "−0.5", "NaN", "∞"]);
  assert.deepEqual([0.1, 1, 1e-7, 1e22, NaN, -Infinity].map(format.exact), ["0.1", "1.0", "1e-07", "1e+22", "nan", "-inf"]);
  assert.equal(format.duration(3725), "1 h 02 m");
  assert.equal(format.bytes(1536), "1.5 KiB");
  assert.equal(format.csvCell('a"b,c'), '"a""b,c"');
  assert.equal(format.plainName('metrics."around zero".min'), "around zero.min");
  assert.equal(format.plainName('metrics."\\"><img>"'), '"><img>');
});

test("a pattern that does not parse says so and hides nothing", () => {
  assert.equal(pattern("^val/").test("val/acc"), true);
  assert.equal(pattern("LOSS").test("loss"), false);
  assert.match(pattern("(").error, /not a regular expression/);
  assert.equal(pattern("(").test("anything"), true);
  assert.deepEqual(["layer10", "layer2"].sort(byName), ["layer2", "layer10"]);
});

test("the store and the address are the same thing", () => {
  const visits = [];
  const host = { location: { search: "?b=1&c=x%2Cy,z%5C%2C&zoom=3~9&n=nonsense" }, history: { pushState: (_, __, url) => visits.push(url), replaceState: (_, __, url) => visits.push(`r${url}`) }, addEventListener: () => {} };
  const store = createStore({ a: text("usual"), b: flag(), c: list(), zoom: range(), n: number(4) }, host);
  assert.deepEqual(store.state, { a: "usual", b: true, c: ["x", "y", "z,"], zoom: [3, 9], n: 4 });
  const seen = [];
  store.watch(["a"], (state) => seen.push(state.a));
  store.set({ a: "new", b: false });
  store.set({ b: true }, { replace: true });
  assert.deepEqual(seen, ["new"]);
  assert.equal(visits.length, 2);
  assert.ok(visits[1].startsWith("r?"));
  assert.ok(store.href({ a: "usual" }).includes("zoom=3%7E9"));
  const again = createStore({ a: text("usual"), b: flag(), c: list(), zoom: range(), n: number(4) }, { ...host, location: { search: visits[0] } });
  assert.deepEqual(again.state.c, ["x", "y", "z,"]);
});

test("scales go to pixels and back, and zoom about a point", () => {
  for (const kind of ["linear", "log"]) {
    const s = scale(kind, [1, 1000], [50, 350]);
    for (const value of [1, 7, 1000]) assert.ok(Math.abs(s.from(s.to(value)) - value) < 1e-9 * value);
    const [a, b] = zoomed(kind, [1, 1000], 10, 0.5);
    assert.ok(a > 1 && b < 1000 && a < 10 && b > 10);
  }
  assert.equal(lower([1, 3, 3, 5], 3), 1);
  assert.deepEqual(padded("linear", [2, 2]).map((v) => v !== 2), [true, true]);
});

test("ticks are round, inside and not too many", () => {
  for (const [low, high] of [[0, 1], [-3, 17], [1e-9, 3e-9], [99_990, 100_010], [0, 1e12]]) {
    const found = ticks("linear", low, high, 5);
    assert.ok(found.length >= 2 && found.length <= 11, `${low} to ${high}: ${found.length}`);
    assert.ok(found.every(({ value }) => value >= low - 1e-12 && value <= high * (1 + 1e-12)));
    assert.equal(new Set(found.map(({ label }) => label)).size, found.length, `${found.map(({ label }) => label)}`);
  }
  assert.deepEqual(ticks("log", 0.01, 100, 5).map(({ value }) => value), [0.01, 0.1, 1, 10, 100]);
  assert.deepEqual(ticks("linear", 0, 7200, 4, "duration").map(({ label }) => label), ["0", "30m", "1h", "1h30m", "2h"]);
  assert.deepEqual(ticks("linear", 5, 5, 4), []);
});

test("an answer is read, and a tail joins what was held", () => {
  const pack = (head, arrays) => {
    const told = { series: [{ ...head, arrays: Object.fromEntries(Object.keys(arrays).map((name, i) => [name, [i * 8 * arrays[name].length, arrays[name].length, "f64"]])) }] };
    const bytes = new TextEncoder().encode(JSON.stringify(told));
    const start = Math.ceil((4 + bytes.length) / 8) * 8;
    const buffer = new ArrayBuffer(start + Object.values(arrays).reduce((sum, a) => sum + a.length * 8, 0));
    new DataView(buffer).setUint32(0, bytes.length, true);
    new Uint8Array(buffer, 4, bytes.length).set(bytes);
    Object.values(arrays).forEach((a, i) => new Float64Array(buffer, start + i * 8 * a.length, a.length).set(a));
    return decode(buffer)[0];
  };
  const head = { run: "r", metric: "m", level: "raw", token: "t", nan: 0, inf: 0, x_range: [0, 2], attempts: [{ attempt: 1, from_index: 0 }] };
  const first = pointsOf(pack({ ...head, points: 3, shown: 3, base: 0 }, { x: [0, 1, 2], y: [5, 6, 7] }), null);
  assert.deepEqual([...first.y], [5, 6, 7]);
  const next = pointsOf(pack({ ...head, points: 4, shown: 4, base: 3 }, { x: [3], y: [8] }), first);
  assert.deepEqual([...next.x], [0, 1, 2, 3]);
  assert.deepEqual([...next.y], [5, 6, 7, 8]);
  assert.equal(pointsOf({ unchanged: true }, next), next);
  assert.equal(pointsOf({ error: { message: "gone" } }, next).error, "gone");
  assert.equal(nearest(next, 1.6), 2);
  assert.equal(nearest({ ...next, isAscending: false }, 0.4), 0);
});

test("a path keeps the lowest and highest of every column, and lifts the pen at gaps", () => {
  const y = Array.from({ length: 10_000 }, (_, i) => Math.sin(i));
  y[5_432] = 50;
  y[7_000] = NaN;
  const path = { all: [], moves: 0, moveTo(x, v) { this.moves++; this.all.push(v); }, lineTo(x, v) { this.all.push(v); } };
  const sx = scale("linear", [0, 9_999], [0, 300]);
  const sy = scale("linear", [-50, 50], [100, 0]);
  trace(path, y.map((_, i) => i), y, 0, y.length - 1, sx, sy, []);
  assert.ok(path.all.length <= 4 * 302);
  assert.equal(Math.min(...path.all), 0);
  assert.equal(path.moves, 2);
  assert.deepEqual(lonely([NaN, 1, NaN, 2, 3], 0, 4), [1]);
});

test("steps that go back lift the pen where an attempt begins", () => {
  const path = { moves: 0, moveTo() { this.moves++; }, lineTo() {} };
  trace(path, [0, 1, 2, 1, 2, 3], [1, 1, 1, 1, 1, 1], 0, 5, scale("linear", [0, 3], [0, 300]), scale("linear", [0, 2], [100, 0]), [3]);
  assert.equal(path.moves, 2);
});

test("a layout covers the values in view, counts what it leaves out, and survives nothing", () => {
  const whole = arrange([line(points([1, 5, 3]))], view, 300, 200);
  assert.deepEqual([whole.sx.low, whole.sx.high], [0, 2]);
  assert.ok(whole.sy.low < 1 && whole.sy.high > 5);
  assert.equal(arrange([line(points([-1, 0, 3, 9]))], { ...view, logY: true }, 300, 200).dropped, 2);
  assert.equal(arrange([], view, 300, 200), null);
  const robust = arrange([line(points([...Array(200).fill(1).map((_, i) => i / 200), 1000]))], { ...view, robust: true }, 300, 200);
  assert.ok(robust.sy.high < 2);
  assert.ok(robust.beyond >= 1);
  assert.equal(arrange([line(points([NaN, NaN]))], view, 300, 200).sy.high > 0, true);
});

test("a group is the mean of those that have a value", () => {
  const group = mean([points([1, 2, NaN]), points([3, 4, 5])], "minmax", 100);
  assert.deepEqual([...group.y], [2, 3, 5]);
  assert.deepEqual([...group.n], [2, 2, 1]);
  assert.deepEqual([...group.low], [1, 2, 5]);
});

test("columns, sorts and conditions are written as the filter language has them", () => {
  assert.deepEqual(columns.readColumns(["metrics.loss.min~90", "status"]).map(({ field, width }) => [field, width]), [["metrics.loss.min", 90], ["status", 92]]);
  assert.equal(columns.orderBy(["-metrics.loss.min", "name"]), "metrics.loss.min desc, name");
  assert.deepEqual(columns.clicked([], "metrics.a", false), ["-metrics.a"]);
  assert.deepEqual(columns.clicked(["-metrics.a"], "metrics.a", false), ["metrics.a"]);
  assert.deepEqual(columns.clicked(["metrics.a"], "metrics.a", false), []);
  assert.deepEqual(columns.clicked(["name"], "metrics.a", true), ["name", "-metrics.a"]);
  assert.equal(columns.every("a = 1", "", "b = 2"), "(a = 1) and (b = 2)");
  assert.equal(columns.equals("params.x", null), "params.x is null");
  assert.equal(columns.equals("params.x", "it's"), "params.x = 'it''s'");
  assert.equal(columns.direction("metrics.val/loss.min"), -1);
  assert.equal(columns.direction("metrics.val/acc"), 1);
  assert.equal(columns.direction("metrics.lr"), 0);
});

test("what came of something lies behind it, near what it is joined with, and nothing lies on another", () => {
  const ids = ["s", "d", "a", "b", "m", "alone"];
  const edges = [["s", "d"], ["d", "a"], ["d", "b"], ["a", "m"], ["b", "m"], ["m", "m"], ["m", "d"], ["x", "m"]]; // one leads back, one to nowhere
  const { spots, width, height } = arrangeLineage(ids, edges);
  assert.equal(spots.size, 6);
  for (const [from, to] of edges.slice(0, 5)) assert.ok(spots.get(from).x + NODE_WIDTH <= spots.get(to).x, `${from} before ${to}`);
  assert.equal(new Set([...spots.values()].map((spot) => `${spot.x} ${spot.y}`)).size, 6);
  assert.ok([...spots.values()].every((spot) => spot.x >= 0 && spot.y >= 0 && spot.x < width && spot.y < height));
  assert.deepEqual(arrangeLineage([], []), { spots: new Map(), width: 0, height: 0 });
  assert.deepEqual([...kin("a", edges.slice(0, 5))].sort(), ["a", "d", "m", "s"]);
});

test("packed numbers are read, and points of trials that are not chosen are left out with their gaps", () => {
  assert.deepEqual(columnOf({ dtype: "f8", bdata: Buffer.from(new Float64Array([1, 0.5]).buffer).toString("base64") }), [1, 0.5]);
  assert.equal(columnOf({ dtype: "q9", bdata: "" }), null);
  const trace = { x: [0, 1, null, 0, 1], y: [5, 4, null, 3, 2], text: ["trial 1, step 0", "trial 1, step 1", null, "trial 12: 3", "trial 12"], marker: { size: [1, 2, 3, 4, 5], color: "red" } };
  assert.deepEqual(kept(trace, new Set([1])).x, [0, 1, null]);
  assert.deepEqual(kept(trace, new Set([12])).y, [3, 2]);
  assert.deepEqual(kept(trace, new Set([12])).marker, { size: [4, 5], color: "red" });
  assert.equal(kept(trace, null), trace);
  const none = { x: [1], y: [2], text: ["other"] };
  assert.equal(kept(none, new Set()), none);
  assert.deepEqual(rowsOf([{ name: "a", x: [1, 2], y: [3, null] }, { type: "contour", x: [0], y: [7], z: [[9]] }]), { heads: ["series", "x", "y", "z"], rows: [["a", 1, 3, ""], ["2", 0, 7, 9]] });
});

test("the address of a picture is read without asking for it", async () => {
  assert.equal(await blobOf("data:image/svg+xml,%3Csvg%3E%C3%A9").text(), "<svg>é");
  const packed = blobOf("data:image/png;base64,AAH/");
  assert.equal(packed.type, "image/png");
  assert.deepEqual([...new Uint8Array(await packed.arrayBuffer())], [0, 1, 255]);
});

test("steps told as stretches are found and joined", () => {
  const spans = [[-4, 2, 3], [10, 10, 4], [95, 1, 1]]; // -4 -2 0, 10 20 30 40, 95
  const all = union([spans]);
  assert.deepEqual(all, [-4, -2, 0, 10, 20, 30, 40, 95]);
  for (let step = -6; step < 100; step++) assert.equal(latest(spans, step), all.filter((each) => each <= step).at(-1), `step ${step}`);
  assert.equal(latest([], 3), undefined);
  assert.deepEqual(union([spans, spans, [[0, 5, 3]]]), [-4, -2, 0, 5, 10, 20, 30, 40, 95]);
});

test("what is missing differs, and names nest below lines of their own", () => {
  assert.ok(same(NaN, NaN) && same([1], [1]) && !same(null, null) && !same(undefined, undefined) && !same(1, "1"));
  assert.ok(differs([1, null]) && differs([1, 2]) && !differs([null, null]) && !differs([2, 2]) && !differs([1]));
  assert.equal(majority([1, 1, 2]), 1);
  assert.equal(majority([1, 2, 3]), undefined);
  assert.equal(majority([1, 1]), undefined);
  const rows = ["params.b", "params.a.x.one", "params.a.x.two", "params.a.y", "params.c.alone"].map((field) => ({ field, values: [] }));
  assert.deepEqual(nested(rows).map((line) => [line.depth, line.title, line.group ?? line.path]), [
    [0, "a", "a."], [1, "x", "a.x."], [2, "one", "a.x."], [2, "two", "a.x."], [1, "y", "a."], [0, "b", ""], [0, "c.alone", ""]]);
});

test("files are in folders, versions of them are told apart, checkpoints say what they are", () => {
  const file = (path, hash = "1", size_bytes = 2) => ({ path, hash, size_bytes, is_here: true });
  const root = foldersOf([file("a"), file("d/e/f"), file("d/g")]);
  assert.deepEqual([root.files.length, root.size_bytes, root.folders[0].path, root.folders[0].size_bytes, root.folders[0].folders[0].files[0].path], [1, 6, "d", 4, "d/e/f"]);
  assert.deepEqual(filesApart([file("a"), file("b"), file("c")], [file("a"), file("b", "2"), file("d")]).map(({ path, kind }) => [path, kind]), [["b", "changed"], ["c", "removed"], ["d", "added"]]);
  assert.deepEqual(marksOf({ name: "checkpoints/best.ckpt" }), ["best"]);
  assert.deepEqual(marksOf({ name: "x", metadata: { kind: "last" } }), ["last"]);
  assert.deepEqual(marksOf({ name: "best-of-all", metadata: {} }), []);
});

test("python is written with names as they are, whatever is in them", () => {
  assert.equal(python.py(null), "None");
  assert.equal(python.py(true), "True");
  assert.match(python.sweepPython("id", "contour", { metric: 'a"b', x: "lr" }), /plot_sweep\("id", "contour", metric="a\\"b", x="lr"\)/);
  assert.match(python.parallelPython(["r"], [{ field: "params.lr", isLog: true }]), /\("params.lr", True\)/);
});

test("a group of buckets keeps every bucket, and a run counts once in a place", () => {
  const buckets = (y, low, high) => ({ ...points(y), level: "band", low: Float64Array.from(low), high: Float64Array.from(high), n: Uint32Array.from(y, () => 10) });
  const a = buckets([1, 3, 5, 7], [0, 3, 5, 7], [1, 3, 5, 99]);
  const b = buckets([3, 5, 7, 9], [3, 5, 7, 9], [3, 5, 7, 9]);
  const found = mean([a, b], "minmax", 1.5); // places twice as wide as buckets
  assert.deepEqual([...found.n], [2, 2, 2]);
  assert.equal(Math.max(...found.high), 99);
  assert.equal(Math.min(...found.low), 0);
  assert.deepEqual([...found.y], [2, 5, 8]); // of x 0, of 1 and 2, of 3
});

test("runs that each have an x of their own are put together by place", () => {
  const own = (shift) => points(Array.from({ length: 100 }, () => shift), Array.from({ length: 100 }, (_, i) => i + shift / 1000));
  const found = mean([own(1), own(2), own(3)], "minmax", 50);
  assert.ok(found.x.length <= 51);
  assert.ok(found.n.slice(1, -1).every((n) => n === 3));
  assert.ok(found.y.slice(1, -1).every((y) => Math.abs(y - 2) < 1e-12));
});

test("steps that go back begin anew, with a mark unless another attempt begins there", () => {
  const head = { points: 6, shown: 6, level: "raw", is_ordered: false, restarts: [2, 4], attempts: [{ attempt: 1, from_index: 0 }, { attempt: 2, from_index: 4 }], arrays: { x: Float64Array.from([0, 5, 3, 9, 4, 6]), y: new Float64Array(6) } };
  const found = pointsOf(head, null);
  assert.deepEqual(found.breaks, [2, 4]);
  assert.deepEqual(found.restarts, [3]);
  assert.deepEqual(found.attempts, [{ attempt: 2, x: 4 }]);
});

test("parts of a second have a unit", () => {
  assert.deepEqual(ticks("linear", 0, 1, 2, "duration").map(({ label }) => label), ["0.0s", "0.5s", "1.0s"]);
  assert.match(ticks("linear", 1795465676.1, 1795465676.9, 4, "clock")[0].label, /^\d\d:\d\d:56\.2$/);
});
