// Names that a filter offers while one types: those of the tasks and domains that there are.

import { read } from "./api.js";
import { place } from "./parts.js";
import { element } from "./shared.js";

export async function suggest() {
  const tasks = (await read("/api/v1/tasks")).data?.tasks ?? [];
  const options = { task: tasks.map((task) => task.name), domain: [...new Set(tasks.map((task) => task.domain))] };
  for (const [name, values] of Object.entries(options)) place(`known-${name}`).replaceChildren(...values.map((value) => element("option", { value })));
}
