// Running a workflow that has ended again from one of its steps, as a run of its own.

import { act, field, mark } from "./dialogs.js";
import { place } from "./parts.js";
import { element } from "./shared.js";

// Gives the run that was made, or null.
export function fork(id, graph) {
  const all = Object.values(graph?.counts ?? {}).reduce((sum, number) => sum + number, 0);
  const input = element("input", { type: "number", min: "1", max: String(all + 1), step: "1", inputmode: "numeric", placeholder: "the first that did not go well" });
  return act({
    title: "Fork this workflow",
    text: "It goes on from a step as a run of its own, which names this one, in the code that there is now. What was before that step is not done again.",
    verb: "Fork",
    path: `/api/v1/workflows/${encodeURIComponent(id)}/fork`,
    parts: [field("from-step", "From step", input, `1 to ${all + 1}; may stay empty`)],
    body: () => {
      mark("from-step", "");
      return place("from-step").value ? { step: Number(place("from-step").value) } : {};
    },
    faults: (found) => found.filter((fault) => {
      if (fault.pointer === "/step") mark("from-step", fault.detail);
      return fault.pointer !== "/step";
    }),
  });
}
