// Where time and failures go: a line for each task, in the order that is asked for, with its spread on a common scale.

import { button, card, shape } from "./parts.js";
import { element, ENDED } from "./shared.js";
import { axis, legend, scale, spread } from "./statistics-scale.js";

// The API tells no more tasks apart.
const MOST_TASKS = 200;

const ended = ({ counts }) => [...ENDED].reduce((total, name) => total + (counts[name] ?? 0), 0);
const whole = (number) => number.toLocaleString("en");

// What can be sorted by: its name in the address, its title, and its value; null is always last.
const COLUMNS = [
  ["task", "Task", (one) => one.task],
  ["ended", "Ended", (one) => ended(one.total)],
  ["failed", "Failed", (one) => one.total.counts.failed ?? 0],
  ["share", "Failed share", (one) => one.total.failure_rate],
  ["retried", "Retried", (one) => one.total.retried],
  ["time", "Time taken", (one) => one.total.seconds],
  ...[["took", "duration"], ["waited", "wait"]].flatMap(([word, name]) => ["p50", "p95", "p99"].map((part) => [`${word}-${part}`, `${word[0].toUpperCase()}${word.slice(1)} ${part}`, (one) => one[name]?.[part] ?? null])),
];
const DEFAULT = "-ended";

export function percent(part) {
  if (part > 0 && part < 0.001) return "< 0.1 %";
  if (part < 1 && part > 0.999) return "> 99.9 %";
  return `${(100 * part).toLocaleString("en", { maximumFractionDigits: part < 0.1 || part > 0.99 ? 1 : 0 })} %`;
}

export function rounded(number) {
  if (number > 0 && number < 0.01) return "< 0.01";
  return number.toLocaleString("en", { maximumFractionDigits: number < 10 ? 2 : number < 100 ? 1 : 0 });
}

const UNITS = [[86_400, "d"], [3600, "h"], [60, "min"], [1, "s"], [0.001, "ms"]];

// In one unit and to two digits, so that what stands in a column can be compared.
export function brief(seconds) {
  if (seconds === 0) return "0 s";
  if (seconds < 0.0001) return "< 0.1 ms";
  const [unit, name] = UNITS.find(([size]) => seconds >= 0.9995 * size) ?? UNITS.at(-1);
  const digits = seconds / unit < 9.95 ? 1 : 0;
  return `${(seconds / unit).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })} ${name}`;
}

// `order` is the name of a column, with a minus before it when the largest comes first; `sort` is told another one.
export function byTask(data, order, sort) {
  const known = COLUMNS.some(([name]) => name === (order ?? "").replace(/^-/, ""));
  const by = known ? order : DEFAULT;
  const lines = sorted(data.tasks, by);
  const common = scale(data.tasks.flatMap((one) => [one.duration, one.wait]));
  const note = data.tasks.length < MOST_TASKS ? "bars: the part of all failures, and of all time taken" : `the ${MOST_TASKS} with the most runs; the totals count all`;
  return card("tasks", "Tasks", note,
    element("p", { class: "legend sub" }, ...legend()),
    element("table", { class: "numbers" }, element("thead", {}, element("tr", {}, ...COLUMNS.map((column) => head(column, by, sort)), element("th", { scope: "col", class: "drawn" }, element("span", { class: "unseen" }, "Spread"), axis(common)))),
      element("tbody", {}, ...lines.map((one) => row(one, data, common)))));
}

function sorted(tasks, by) {
  const value = COLUMNS.find(([name]) => name === by.replace(/^-/, ""))[2];
  const sign = by.startsWith("-") ? -1 : 1;
  const compare = (one, other) => (typeof one === "string" ? one.localeCompare(other) : one - other);
  return [...tasks].sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * compare(a, b);
  });
}

function head([name, title], by, sort) {
  const [up, down] = [by === name, by === `-${name}`];
  // Whoever asks for numbers wants the largest first, and names from A.
  const next = up || (!down && name !== "task") ? `-${name}` : name;
  return element("th", { scope: "col", class: name === "task" ? null : name.endsWith("p50") ? "right begins" : "right", "aria-sort": up ? "ascending" : down ? "descending" : null }, button(`sort-${name}`, title, () => sort(next), { class: "sort" }));
}

function row(one, { total, since, until }, common) {
  const { counts, failure_rate: rate, per_hour: perHour, retried, seconds } = one.total;
  const [all, failed] = [ended(one.total), counts.failed ?? 0];
  const address = (more) => `/runs?${new URLSearchParams({ task: one.task, ...more, finished_since: since, finished_until: until })}`;
  const cell = (title, kind, ...children) => element("td", { class: `right number ${kind}`, "data-title": title }, ...children);
  const spans = (word, found) => ["p50", "p95", "p99"].map((part) => cell(`${word} ${part}`, part === "p50" ? "begins" : "", found ? brief(found[part]) : element("span", { class: "soft" }, "—")));
  return element("tr", {},
    element("th", { scope: "row" }, element("a", { id: `runs-${one.task}`, class: "strong", href: address({}) }, ...breakable(one.task))),
    cell("Ended", "", whole(all), element("span", { class: "line sub" }, `${rounded(perHour)} / h`)),
    cell("Failed", "parted", failed ? element("a", { id: `failed-${one.task}`, class: "fault", href: address({ state: "failed" }), "aria-label": `${whole(failed)} failed, of ${one.task}` }, whole(failed)) : element("span", { class: "soft" }, "0"), part("failed", failed, total.counts.failed ?? 0)),
    cell("Failed share", "", rate === null ? element("span", { class: "soft" }, "—") : element("span", { class: rate ? "fault" : "soft" }, percent(rate))),
    cell("Retried", "", element("span", { class: retried ? null : "soft" }, whole(retried)), retried ? element("span", { class: "line sub" }, percent(retried / all)) : null),
    cell("Time taken", "parted", brief(seconds), part("time", seconds, total.seconds)),
    ...spans("Took", one.duration), ...spans("Waited", one.wait),
    element("td", { class: "drawn", "data-title": "" }, one.duration || one.wait ? spread(common, one) : element("span", { class: "sub" }, "none of them started")));
}

// How much of all of it is here, as a bar and in percent.
function part(kind, some, all) {
  if (!some) return null;
  return [shape("svg", { class: "part", width: "100%", height: 5, "aria-hidden": "true" }, shape("rect", { class: kind, width: `${Math.max(2, (100 * some) / all)}%`, height: 5, rx: 2 })), element("span", { class: "line sub" }, percent(some / all))];
}

// A long name breaks where its words end.
function breakable(name) {
  return name.split(/(?<=[._-])/).flatMap((word) => [word, element("wbr")]);
}
