/** Steps as the server tells them: stretches of equal distance. Pure. */

/** @typedef {[number, number, number]} Span  first step, distance to the next, how many */

/** The last step that is not after another; `undefined`: there is none. @param {Span[]} spans  from low to high @param {number} step */
export function latest(spans, step) {
  let [low, high] = [0, spans.length]; // the first span that begins after it
  while (low < high) {
    const middle = (low + high) >> 1;
    if (spans[middle][0] <= step) low = middle + 1;
    else high = middle;
  }
  if (!low) return undefined;
  const [first, distance, count] = spans[low - 1];
  return first + distance * Math.min(count - 1, Math.floor((step - first) / distance));
}

/** All steps of several, each once, from low to high. @param {Span[][]} several */
export function union(several) {
  const steps = new Set();
  const seen = new Set(); // names that were logged together have the same spans
  for (const spans of several) {
    const key = JSON.stringify(spans);
    if (seen.has(key)) continue;
    seen.add(key);
    for (const [first, distance, count] of spans) for (let i = 0; i < count; i++) steps.add(first + i * distance);
  }
  return [...steps].sort((a, b) => a - b);
}
