// Decisions and undo: sent one after another, shown only once the server has saved them.

import { forget, shownDigest } from "./images.js";
import { text } from "./language.js";
import { askForClass } from "./search.js";
import { decide, undo } from "./server.js";

// Undo is about the decisions of this tab.
const page = (sessionStorage.page ??= crypto.randomUUID());
let busy = false, tell = () => {};

/** Sets the function that is called with {action, paths, moved, className} whenever decisions have changed. */
export function onDecided(listener) {
  tell = listener;
}

/** Does what a button says with some images [{path, suggested}...]. Resolves to the paths that have to be shown again, if any. */
export async function act(action, entries, store, say) {
  // A key that is pressed before the last decision is saved would decide an image that nobody has seen.
  if (busy) return undefined;
  busy = true;
  document.body.ariaBusy = "true";
  try {
    return action === "undo" ? await takeBackLast(store, say) : await send(action, entries, store, say);
  } finally {
    busy = false;
    document.body.ariaBusy = "false";
  }
}

async function send(action, entries, store, say) {
  if (action === "accept" && entries.some(({ suggested }) => !suggested)) return say(text("not_all_suggested"), true);
  if (action !== "take_back" && entries.some(({ path }) => shownDigest(path) === undefined)) return say(text("not_shown"), true);
  const className = action === "class" ? await askForClass(store.class_names, entries.length) : entries[0].suggested;
  if (action === "class" && className === null) return undefined;
  const choices = entries.map((entry) => choice(action, entry, className, store));
  const paths = entries.map(({ path }) => path);
  return answered(store, say, () => decide({ version: store.version, page, choices }), () => tell({ action, paths, moved: true, className }));
}

function choice(action, { path, suggested }, className, store) {
  const digest = shownDigest(path) ?? "", name = action === "accept" ? suggested : className;
  if (action === "take_back") return { path, digest, action: "undo", class: "" };
  // A class that the image has already is a label that is right.
  if ((action === "accept" || action === "class") && name !== store.images[path].label) return { path, digest, action: "relabel", class: name };
  return { path, digest, action: action === "drop" ? "drop" : "keep", class: "" };
}

function takeBackLast(store, say) {
  return answered(store, say, () => undo({ version: store.version, page }), ({ undone }) => {
    say(undone.length ? text("undone", { count: undone.length }) : text("nothing_to_undo"));
    const index = store.itemsOf(store.queue).findIndex(({ images }) => images.includes(undone[0]));
    if (index >= 0) store.index = index;
    tell({ action: "undo", paths: undone, moved: false });
  });
}

async function answered(store, say, request, then) {
  try {
    const content = await request();
    store.apply(content);
    then(content);
  } catch (error) {
    if (!error.content) throw error;
    store.apply(error.content);
    say(error.message, true);
    const paths = error.content.paths ?? [];
    if (error.code === "changed") paths.forEach(forget);
    return paths;
  }
  return undefined;
}
