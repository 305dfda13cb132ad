// What the page says about an item, an image and a decision.

import { number, percent, text } from "./language.js";

export const fileName = (path) => path.split("/").pop();

/** What was decided, in words: "relabelled to dog". */
export function decided(decision, image) {
  if (decision.action === "relabel") return text("decision_relabel", { name: decision.class });
  return text(decision.action === "keep" && image?.reason ? "decision_let_in" : `decision_${decision.action}`);
}

/** The same with its person and time; "": nothing was decided. */
export function decision(store, path) {
  const found = store.decisions.get(path);
  if (!found) return "";
  return text("decision", { what: decided(found, store.images[path]), who: found.who, when: found.when.replace("T", " ").slice(0, 16) });
}

/** The question that an item asks. */
export function question({ queue, images, suggested }, store) {
  const [first, second] = images.map((path) => store.images[path]);
  switch (queue) {
    case "suspects":
    case "reports":
      return text(suggested[0] ? `ask_${queue}` : `ask_${queue}_only`, { label: first.label, suggested: suggested[0] });
    case "conflicts":
      return text("ask_conflicts", { first: first.label, second: second.label });
    case "leaks":
      return text("ask_leaks", { first: first.split, second: second.split });
    case "rejects":
      return text("ask_rejects", { reason: text(first.reason) ?? first.reason });
    default:
      return text(`ask_${queue}`, { label: first.label });
  }
}

/** What else is known of an item: [[name, value]...]. */
export function facts({ queue, images, facts: known }, store) {
  const found = [];
  const add = (key, value) => value && found.push([text(`fact_${key}`), value]);
  if (images.length === 1) {
    const [path] = images, image = store.images[path];
    add("decision", decision(store, path));
    add("label", queue === "suspects" ? "" : image.label);
    add("split", image.reason ? "" : image.split);
    add("reason", image.reason && (text(image.reason) ?? image.reason));
    add("file", path);
  }
  add("kind", known.kind && text(known.kind));
  add("cosine", known.cosine && number(known.cosine, 4));
  add("closeness", known.closeness && number(known.closeness, 4));
  for (const [folder, name, probability] of known.sources ?? []) add("source", text("source", { folder, name, probability: percent(probability) }));
  for (const folder of known.folders ?? []) add("source", folder);
  for (const [time, model, name, note] of known.reports ?? []) add("report", text("report", { time, model, name, note }));
  return found;
}

/** [[name, class, probability]...] of the label and of the suggestion. */
export function bars({ suggested, images, facts: known }, store) {
  if (known.label_probability === undefined) return [];
  return [
    [text("now_label"), store.images[images[0]].label, known.label_probability],
    [text("now_suggested"), suggested[0] || known.sources[0][1], known.suggested_probability],
  ];
}
