// The page: adds and removes cards, counts them, and shows the model.

import * as camera from "./camera.js";
import { Card } from "./card.js";
import { follow, renderLessons } from "./explain.js";
import { listen } from "./intake.js";
import { number, switchLanguage, text, translate } from "./language.js";
import { Queue } from "./queue.js";
import { model as fetchModel, onToken } from "./server.js";

const SHOWN_CLASSES = 40, LOG_LINES = 20;
const byId = (id) => document.getElementById(id);
const list = byId("cards");

let model = null, loading = null, milliseconds = null, followed = null, decoding = Promise.resolve();
const limits = { bytes: 0, files: 0, pixels: 0 };
const queue = new Queue(limits, (elapsed) => {
  milliseconds = elapsed;
  count();
});
const on = { changed, remove, retry: work };

function cards() {
  return [...list.children].map((element) => element.card);
}

/** Adds files as cards, the newest on top. */
function take(files, pasted = false) {
  const time = new Date().toTimeString().slice(0, 8).replaceAll(":", ".");
  const name = (file) => (pasted && /^image\.\w+$/.test(file.name) ? text("pasted_name", { time, suffix: file.name.split(".").pop() }) : file.name);
  const added = files.map((file) => new Card(file, name(file), model, on));
  list.prepend(...added.map((card) => card.element));
  work(added);
}

/** Decodes and sends cards one by one: a phone's memory does not hold twelve decoded photos. */
function work(some) {
  for (const card of some) {
    card.show({ state: "waiting" });
    decoding = decoding.then(() => card.removed || decode(card));
  }
  count();
}

async function decode(card) {
  if (!model) await loadModel();
  if (!model) return card.show({ state: "failed", sentence: byId("banner").textContent, again: true });
  card.model = model;
  if (!card.size) await card.prepare();
  const sentence = card.tooLarge(limits);
  if (sentence) card.show({ state: "failed", sentence });
  else if (!card.removed) queue.add([card]);
}

function changed(card) {
  const line = document.createElement("span");
  line.textContent = `${card.announcement}. `;
  byId("log").append(line);
  while (byId("log").childElementCount > LOG_LINES) byId("log").firstChild.remove();
  if (card.prediction) follow((followed = card));
  count();
}

function remove(card) {
  const next = card.element.nextElementSibling ?? card.element.previousElementSibling;
  const inside = card.element.contains(document.activeElement);
  card.drop();
  byId("log").textContent = text("removed", { name: card.name });
  if (inside) (next ?? byId("choose")).focus();
  if (followed === card) follow((followed = cards().find(({ prediction }) => prediction) ?? null));
  count();
}

function count() {
  const all = cards(), predicted = all.filter(({ state }) => state === "predicted").length;
  const failed = all.filter(({ state }) => state === "failed").length, again = all.filter((card) => card.again).length;
  document.body.classList.toggle("busy", all.length > 0);
  byId("bar").hidden = !all.length;
  let line = text("count", { predicted, all: all.length });
  if (failed) line += text("failed", { failed });
  if (milliseconds && predicted) line += text("milliseconds", { milliseconds });
  byId("count").textContent = line;
  byId("retry").hidden = again < 2;
  byId("retry").textContent = text("retry_all", { count: again });
}

function render() {
  translate(document);
  byId("language").textContent = text("other_language");
  byId("language").lang = document.documentElement.lang === "en" ? "zh-CN" : "en";
  document.title = text("title");
  if (model) renderModel();
  for (const card of cards()) card.render();
  follow(followed);
  count();
}

function renderModel() {
  const { name, classes, engine, paddle, digest } = model;
  byId("lead").textContent = text("lead", { name, count: classes.length });
  byId("limits").textContent = text("limits", { megabytes: number(limits.bytes / 1e6), megapixels: number(limits.pixels / 1e6) });
  byId("known").hidden = false;
  byId("class-count").textContent = text("known", { count: classes.length });
  renderClasses(byId("all-classes").dataset.open ? classes.length : SHOWN_CLASSES);
  byId("model").textContent = text("model", { name, engine, paddle, digest: (digest ?? "").slice(0, 12) });
  document.documentElement.style.setProperty("--threshold", model.threshold ?? -1);
  document.body.classList.toggle("has-threshold", model.threshold != null);
  renderLessons(model);
}

function renderClasses(shown) {
  const { classes } = model;
  byId("classes").replaceChildren(...classes.slice(0, shown).map((name) => Object.assign(document.createElement("li"), { textContent: name })));
  byId("all-classes").hidden = classes.length <= shown;
  byId("all-classes").textContent = text("all_classes", { count: classes.length - shown });
}

/** Fetches the model, and retries while the server is starting. */
function loadModel() {
  loading ??= fetchUntilReady().finally(() => (loading = null));
  return loading;
}

async function fetchUntilReady() {
  for (;;) {
    try {
      model = await fetchModel();
      // Part of the body is not images.
      Object.assign(limits, model.limits, { bytes: model.limits.body_mb * 1e6 * 0.99 });
      byId("banner").hidden = true;
      return render();
    } catch (error) {
      const later = error.again && error.status !== 401, seconds = error.seconds || 5;
      byId("banner").textContent = error.message + (later ? ` ${text("starting", { seconds })}` : "");
      byId("banner").hidden = false;
      if (!later) return;
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
  }
}

function askForToken(wrong) {
  const dialog = byId("token"), value = byId("token-value");
  byId("token-why").textContent = text(wrong ? "token_wrong" : "token_why");
  value.value = dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    // Esc and Cancel close it without a value.
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "go" ? value.value.trim() : null), { once: true });
  });
}

function keys(event) {
  const card = event.target.closest?.(".card")?.card;
  if (!card || event.altKey || event.ctrlKey || event.metaKey || event.target.matches("select, .relabel *")) return;
  const moves = { ArrowRight: card.element.nextElementSibling, ArrowLeft: card.element.previousElementSibling };
  if (event.key === "Delete" || event.key === "Backspace") remove(card);
  else if (event.target !== card.element) return;
  else if (event.key === "Enter") card.turn();
  else if (event.key in moves) moves[event.key]?.focus();
  else return;
  event.preventDefault();
}

onToken(askForToken);
listen(take);
camera.prepare(take);
byId("drop").addEventListener("click", (event) => {
  if (event.target.closest("#choose") || !event.target.closest("button, input")) byId("files").click();
});
byId("camera").addEventListener("click", () => camera.open());
byId("clear").addEventListener("click", () => {
  for (const card of cards()) card.drop();
  follow((followed = null));
  count();
  byId("choose").focus();
});
byId("retry").addEventListener("click", () => work(cards().filter((card) => card.again)));
byId("language").addEventListener("click", () => {
  switchLanguage();
  render();
});
byId("all-classes").addEventListener("click", () => {
  byId("all-classes").dataset.open = "yes";
  renderClasses(model.classes.length);
});
byId("token-cancel").addEventListener("click", () => byId("token").close());
document.addEventListener("keydown", keys);
render();
loadModel();
