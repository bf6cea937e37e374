// Running one run again, perhaps with other arguments, which are checked against its task's schema.

import { read } from "./api.js";
import { editor } from "./arguments.js";
import { act } from "./dialogs.js";
import { complain } from "./parts.js";
import { element } from "./shared.js";

// Gives the run that was made, or null.
export async function runAgain(id) {
  const path = `/api/v1/runs/${encodeURIComponent(id)}`;
  const [{ data: run, detail }, tasks] = await Promise.all([read(path), read("/api/v1/tasks")]);
  if (!run) return complain(detail) ?? null;
  const schema = tasks.data?.tasks.find((task) => task.name === run.task)?.schema;
  const fields = schema ? editor(schema, run.args) : { parts: [element("p", { class: "fault" }, "No service offers this task now, so its arguments stay as they were.")] };
  return act({
    title: `Run ${run.task} again`,
    text: "As a run of its own, which names this one. Change what has to be mended; it is checked against the task's schema.",
    verb: "Run again",
    path: `${path}/replay`,
    ...fields,
  });
}
