// Spans of time on one logarithmic scale: its marks, and how p50, p95 and p99 lie on it.

import { shape } from "./parts.js";
import { element } from "./shared.js";

// Each about ten times the one before, in seconds.
const MARKS = [[0.001, "1 ms"], [0.01, "10 ms"], [0.1, "100 ms"], [1, "1 s"], [10, "10 s"], [60, "1 min"], [600, "10 min"], [3600, "1 h"], [36_000, "10 h"], [360_000, "100 h"], [3_600_000, "1000 h"]];
const MOST_LABELS = 5;
const LANES = { duration: 12, wait: 27 };
const HEIGHT = 38;

// The scale on which all of these spreads have a place. What is shorter than its first mark lies on it.
export function scale(spreads) {
  const values = spreads.filter(Boolean).flatMap(({ p50, p95, p99 }) => [p50, p95, p99]).filter((seconds) => seconds > 0);
  const first = Math.max(0, MARKS.findLastIndex(([seconds]) => seconds <= Math.min(...values)));
  const found = MARKS.findIndex(([seconds]) => seconds >= Math.max(...values));
  const last = Math.max(first + 1, found < 0 ? MARKS.length - 1 : found);
  const marks = MARKS.slice(Math.min(first, MARKS.length - 2), last + 1);
  const [low, high] = [marks[0][0], marks.at(-1)[0]].map(Math.log10);
  // A little room at both ends, for what lies on the first or the last mark.
  const at = (seconds) => 2 + 96 * Math.min(1, Math.max(0, (Math.log10(Math.max(seconds, 1e-9)) - low) / (high - low)));
  return { marks, at };
}

export function axis({ marks, at }) {
  const each = Math.ceil(marks.length / MOST_LABELS);
  const labels = marks.map(([seconds, label], index) => (index % each ? null : shape("text", { x: `${at(seconds)}%`, y: 12, "text-anchor": at(seconds) < 8 ? "start" : at(seconds) > 92 ? "end" : "middle" }, label)));
  return shape("svg", { class: "spread axis", width: "100%", height: 22, "aria-hidden": "true" }, labels,
    marks.map(([seconds]) => shape("line", { class: "mark", x1: `${at(seconds)}%`, x2: `${at(seconds)}%`, y1: 16, y2: 22 })));
}

export function spread({ marks, at }, spreads) {
  return shape("svg", { class: "spread", width: "100%", height: HEIGHT, "aria-hidden": "true" },
    marks.map(([seconds]) => shape("line", { class: "mark", x1: `${at(seconds)}%`, x2: `${at(seconds)}%`, y1: 0, y2: HEIGHT })),
    Object.entries(LANES).map(([name, y]) => (spreads[name] ? lane(name, y, spreads[name], at) : null)));
}

// A dot where half were done, a thick bar to where 95 of a hundred were, a thin one to 99, and its end.
export function lane(name, y, { p50, p95, p99 }, at) {
  const [half, most, nearly] = [p50, p95, p99].map(at);
  return shape("g", { class: name },
    shape("line", { class: "thin", x1: `${most}%`, x2: `${nearly}%`, y1: y, y2: y }),
    shape("line", { class: "thick", x1: `${half}%`, x2: `${most}%`, y1: y, y2: y }),
    shape("line", { class: "end", x1: `${nearly}%`, x2: `${nearly}%`, y1: y - 5, y2: y + 5 }),
    shape("circle", { cx: `${half}%`, cy: y, r: 4.5 }));
}

// The same with words, as what the drawings mean.
export function legend() {
  const sample = (name) => shape("svg", { class: "spread key", width: 54, height: 14, "aria-hidden": "true" }, lane(name, 7, { p50: 12, p95: 60, p99: 92 }, (x) => x));
  return [sample("duration"), "took ", sample("wait"), "waited", element("span", {}, "(dot: p50, thick: to p95, thin: to p99)")];
}
