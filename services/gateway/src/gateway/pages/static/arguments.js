// An editor of a task's arguments: one field for each, as its schema says. What nobody touched is sent as it was.

import { element } from "./shared.js";
import { place } from "./parts.js";
import { field, mark } from "./dialogs.js";

const LONG = 80;
const id = (name) => `argument-${name}`;

// `{parts, body, faults}`: what to show, what to send (null when a field cannot be read), and marking what was found.
export function editor(schema, args) {
  const known = schema?.properties ?? {};
  // The ledger keeps no order of names, but for those that are required.
  const names = [...new Set([...(schema?.required ?? []), ...[...Object.keys(known), ...Object.keys(args)].sort()])];
  const fields = names.map((name) => one(name, resolve(schema, known[name]), args, { known: name in known, required: (schema?.required ?? []).includes(name) }));
  return {
    parts: fields.length ? fields.map((each) => each.part) : [element("p", {}, "It takes no arguments.")],
    body: () => (fields.some((each) => each.touched()) ? body(fields, args) : {}),
    faults: (found) => found.filter((fault) => !placeFault(fault, fields)),
  };
}

// What a reference, or one choice beside null, stands for.
function resolve(schema, part) {
  const name = part?.$ref?.split("/").pop();
  if (name) return { ...schema.$defs?.[name], ...part };
  const choices = part?.anyOf?.filter((choice) => choice.type !== "null");
  return choices?.length === 1 && part.anyOf.length > 1 ? { ...resolve(schema, choices[0]), ...part, nullable: true } : part ?? {};
}

function one(name, schema, args, { known, required }) {
  const given = name in args;
  const kind = kindOf(schema, args[name], given);
  const input = KINDS[kind].make(schema, given ? args[name] : undefined);
  const hints = [schema.type && !schema.enum ? schema.type : null, required ? "required" : schema.default === undefined || schema.default === null ? "may stay empty" : `otherwise ${JSON.stringify(schema.default)}`, known ? null : "not known to this task: empty it"].filter(Boolean).join(", ");
  const before = input.value;
  return { name, given, required, part: field(id(name), name, input, hints), touched: () => input.value !== before, read: () => KINDS[kind].read(input.value), input };
}

function kindOf(schema, value, given) {
  if (Array.isArray(schema.enum) && (!given || schema.enum.includes(value))) return "choice";
  if (schema.type === "boolean" && (!given || typeof value === "boolean")) return "choice";
  if (schema.type === "string" && (!given || typeof value === "string")) return "text";
  return "json";
}

const KINDS = {
  text: {
    make: (_, value = "") => (value.length > LONG || value.includes("\n") ? element("textarea", { rows: "4", spellcheck: "false" }, value) : element("input", { value, spellcheck: "false", autocomplete: "off" })),
    read: (text) => text,
  },
  choice: {
    make: (schema, value) => {
      const options = schema.enum ?? [true, false];
      const chosen = value === undefined ? "" : JSON.stringify(value);
      return element("select", {}, element("option", { value: "" }, ""), ...options.map((option) => element("option", { value: JSON.stringify(option), selected: JSON.stringify(option) === chosen ? "" : null }, String(option))));
    },
    read: (text) => JSON.parse(text),
  },
  json: {
    make: (_, value) => {
      const text = value === undefined ? "" : JSON.stringify(value, null, 2);
      return text.includes("\n") ? element("textarea", { rows: "5", class: "mono", spellcheck: "false" }, text) : element("input", { value: text, class: "mono", spellcheck: "false", autocomplete: "off" });
    },
    read: (text) => JSON.parse(text),
  },
};

function body(fields, args) {
  const made = {};
  let sound = true;
  for (const { name, given, required, touched, read, input } of fields) {
    mark(id(name), "");
    if (!touched()) {
      if (given) made[name] = args[name];
      continue;
    }
    if (input.value === "" && !required) continue;
    try {
      made[name] = read();
    } catch {
      sound = false;
      mark(id(name), input.value === "" ? "is required" : 'is no JSON; text goes between quotes: "like this"');
    }
  }
  if (!sound) document.querySelector("dialog [aria-invalid]")?.focus();
  return sound ? { args: made } : null;
}

function placeFault(fault, fields) {
  const [top, ...deeper] = fault.pointer.replace(/^\/args\/?/, "").split("/").map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
  const missing = /^lacks the field '?(.+?)'?$/.exec(fault.detail)?.[1];
  const found = fields.find((each) => each.name === (top || missing));
  if (!fault.pointer.startsWith("/args") || !found) return false;
  mark(id(found.name), missing && !top ? "is required" : `${deeper.length ? `${deeper.join(" / ")} ` : ""}${fault.detail}`);
  return true;
}
