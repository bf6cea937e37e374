// How it went over a window: a bar for each minute or hour, with its axes, the peaks in words, and every number.

import { card, details, shape } from "./parts.js";
import { element } from "./shared.js";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
// Up to this length the API tells a window minute by minute, beyond it hour by hour.
const BY_MINUTE_MS = 3 * HOUR_MS;
const HEIGHT = 110;
const MOST_TICKS = 6;
// Between two marks of the axis, in minutes.
const STEPS = [10, 15, 30, 60, 180, 360, 720, 1440, 2880, 5760, 10080];

const whole = (number) => number.toLocaleString("en");

export function course({ since, until, buckets }) {
  const [from, to] = [Date.parse(since), Date.parse(until)];
  const wide = to - from <= BY_MINUTE_MS ? MINUTE_MS : HOUR_MS;
  const unit = wide === MINUTE_MS ? "minute" : "hour";
  const parts = buckets.map(({ at, counts }) => ({ at: Date.parse(at), ended: Object.values(counts).reduce((n, count) => n + count, 0), failed: counts.failed ?? 0 }));
  const most = parts.reduce((best, part) => (part.ended > best.ended ? part : best));
  const worst = parts.reduce((best, part) => (part.failed > best.failed ? part : best));
  // A day that ends now is a moment longer than one.
  const days = to - from > 25 * HOUR_MS;
  return card("course", "Over the window", `by the ${unit}`,
    element("p", { class: "legend sub" }, key("failed"), "failed ", key("others"), "ended otherwise"),
    drawing({ from: Math.floor(from / wide) * wide, to, wide, parts, most: most.ended }),
    element("p", { class: "peaks sub" }, `Most in ${unit === "hour" ? "an hour" : "a minute"}: ${whole(most.ended)}, from ${clock(most.at, days)}. `,
      worst.failed ? `Most failures: ${whole(worst.failed)}, from ${clock(worst.at, days)}.` : "Nothing failed."),
    details("course-more", `Every ${unit} in numbers`, numbers(parts, unit)));
}

const key = (kind) => shape("svg", { class: "key", width: 10, height: 10, "aria-hidden": "true" }, shape("rect", { class: kind, width: 10, height: 10, rx: 2 }));

function clock(at, days) {
  return new Date(at).toLocaleString("en-GB", days ? { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" } : { hour: "2-digit", minute: "2-digit" });
}

function drawing({ from, to, wide, parts, most }) {
  const slots = Math.max(1, Math.ceil((to - from) / wide));
  const x = (at) => (100 * (at - from)) / (slots * wide);
  const width = (100 / slots) * (slots > 100 ? 1 : 0.82);
  const tall = (count) => (count ? Math.max(1.5, (100 * count) / most) : 0);
  const bars = parts.map(({ at, ended, failed }) => {
    const [all, bad] = [tall(ended), tall(failed)];
    return [all > bad ? bar("others", x(at), 100 - all, width, all - bad) : null, bad ? bar("failed", x(at), 100 - bad, width, bad) : null];
  });
  const lines = [0, 50, 100].map((y) => shape("line", { x1: 0, x2: "100%", y1: `${y}%`, y2: `${y}%` }));
  return element("div", { class: "drawing" },
    element("div", { class: "most sub number" }, whole(most)),
    shape("svg", { class: "bars", width: "100%", height: HEIGHT + 24, "aria-hidden": "true" },
      shape("svg", { width: "100%", height: HEIGHT }, lines, bars.flat()),
      ticks(from, to).map((at) => shape("text", { x: `${x(at)}%`, y: HEIGHT + 17, "text-anchor": x(at) < 6 ? "start" : x(at) > 94 ? "end" : "middle" }, text(at, to - from)))));
}

const bar = (kind, x, y, width, height) => shape("rect", { class: kind, x: `${x}%`, y: `${y}%`, width: `${width}%`, height: `${height}%` });

// Round moments of the reader's own day.
function ticks(from, to) {
  const step = MINUTE_MS * (STEPS.find((minutes) => (to - from) / (minutes * MINUTE_MS) <= MOST_TICKS) ?? STEPS.at(-1));
  const away = MINUTE_MS * new Date(from).getTimezoneOffset();
  const first = Math.ceil((from - away) / step) * step + away;
  return Array.from({ length: Math.max(0, Math.floor((to - first) / step) + 1) }, (_, index) => first + index * step);
}

function text(at, long) {
  const day = long > 2 * 24 * HOUR_MS;
  return new Date(at).toLocaleString("en-GB", day ? { day: "numeric", month: "short" } : { hour: "2-digit", minute: "2-digit" });
}

function numbers(parts, unit) {
  const head = [`${unit[0].toUpperCase()}${unit.slice(1)} from`, "Ended", "Failed"].map((name, index) => element("th", { scope: "col", class: index ? "right" : null }, name));
  const body = parts.map(({ at, ended, failed }) => element("tr", {}, element("th", { scope: "row" }, clock(at, true)), element("td", { class: "right number" }, whole(ended)), element("td", { class: `right number ${failed ? "fault" : "soft"}` }, whole(failed))));
  return element("div", { class: "scroll", id: "course-numbers", tabindex: "0", role: "group", "aria-label": `Every ${unit} in numbers` },
    element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body)));
}
