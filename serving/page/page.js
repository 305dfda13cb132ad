// The page: adds and removes cards, counts them, and shows the model.

import * as camera from "./camera.js";
import { Card } from "./card.js";
import { follow, renderLessons } from "./explain.js";
import { followFocus, keepStop, neighbour } from "./focus.js";
import { listen } from "./intake.js";
import { number, switchLanguage, text, translate } from "./language.js";
import { Queue } from "./queue.js";
import { model as fetchModel, onToken } from "./server.js";

const SHOWN_CLASSES = 40, LOG_LINES = 20;
const byId = (id) => document.getElementById(id);
const list = byId("cards");

let model = null, loading = null, trouble = null, milliseconds = null, followed = null, decoding = Promise.resolve();
let asking = null, isChanged = false, removed = []; // removed: [card, its index], until the next action
const limits = { bytes: 0, files: 0, pixels: 0 };
const queue = new Queue(limits, responded, reason);
const on = { changed, remove: (card) => remove([card]), retry, reason, model: () => model };

function cards() {
  return [...list.children].map((element) => element.card);
}

/** Adds files as cards, the newest on top. */
function take(files, pasted = false) {
  const time = new Date().toTimeString().slice(0, 8).replaceAll(":", ".");
  const name = (file) => (pasted && /^image\.\w+$/.test(file.name) ? text("pasted_name", { time, suffix: file.name.split(".").pop() }) : file.name);
  const added = files.map((file) => new Card(file, name(file), model, on));
  if (!added.length) return;
  forget();
  list.prepend(...added.map((card) => card.element));
  if (!list.contains(document.activeElement)) keepStop(list, list.firstElementChild);
  work(added);
}

function retry(some) {
  forget();
  work(some);
}

/** Decodes and sends cards one by one: a phone's memory does not hold twelve decoded photos. */
function work(some) {
  for (const card of some) {
    card.show({ state: "waiting" });
    decoding = decoding.then(() => card.removed || card.state !== "waiting" || decode(card));
  }
  count();
}

async function decode(card) {
  if (!model) await loadModel();
  if (!model) return card.show({ state: "failed", again: true });
  if (!card.size || card.model !== model) {
    card.model = model;
    await card.prepare();
  }
  const sentence = card.tooLarge(limits);
  if (sentence) card.show({ state: "failed", sentence });
  else if (!card.removed) queue.add([card]);
}

/** Says a sentence to screen readers. */
function say(sentence) {
  byId("log").append(Object.assign(document.createElement("span"), { textContent: `${sentence} ` }));
  while (byId("log").childElementCount > LOG_LINES) byId("log").firstElementChild.remove();
}

function changed(card) {
  say(`${card.announcement}.`);
  if (card.prediction) follow((followed = card));
  count();
}

/** Takes cards off the page: undo() brings them back until the next action. */
function remove(some) {
  const all = cards(), [{ element }] = some;
  const next = some.length > 1 ? null : (element.nextElementSibling ?? element.previousElementSibling);
  const inside = some.length > 1 || element.contains(document.activeElement);
  forget();
  removed = some.map((card) => [card, all.indexOf(card)]);
  for (const card of some) card.hide();
  say(removedText());
  showRemaining();
  if (inside) (next ?? byId("undo")).focus();
}

const removedText = () => (removed.length > 1 ? text("removed_all", { count: removed.length }) : text("removed", { name: removed[0][0].name }));

function undo() {
  const back = removed;
  removed = [];
  for (const [card, index] of back) card.restore(list, list.children[index] ?? null);
  // What was removed while it waited has lost its place in the queue.
  work(back.map(([card]) => card).filter(({ state }) => state === "waiting"));
  say(text("restored", { count: back.length }));
  showRemaining();
  back[0][0].element.focus();
}

function forget() {
  for (const [card] of removed) card.free();
  removed = [];
  isChanged &&= cards().some((card) => card.stale);
  renderTrouble();
}

function showRemaining() {
  if (!followed || followed.removed) follow((followed = cards().find(({ prediction }) => prediction) ?? null));
  count();
}

function count() {
  const all = cards(), predicted = all.filter(({ state }) => state === "predicted").length;
  const failed = all.filter(({ state }) => state === "failed").length, again = all.filter((card) => card.retriable).length;
  document.body.classList.toggle("busy", all.length > 0);
  byId("bar").hidden = !all.length && !removed.length;
  byId("clear").hidden = !all.length;
  byId("undo").hidden = !removed.length;
  if (removed.length) byId("undo").title = removedText();
  let line = all.length || !removed.length ? text("count", { predicted, all: all.length }) : removedText();
  if (failed) line += text("failed", { failed });
  byId("count").textContent = line;
  byId("elapsed").textContent = milliseconds && predicted ? text("milliseconds", { milliseconds }) : "";
  byId("retry").hidden = again < 2;
  byId("retry").textContent = text("retry_all", { count: again });
  if (!list.contains(document.activeElement)) keepStop(list);
}

function render() {
  translate(document);
  byId("language").textContent = text("other_language");
  byId("language").lang = document.documentElement.lang === "en" ? "zh-CN" : "en";
  document.title = text("title");
  camera.render();
  if (model) renderModel();
  renderTrouble();
  for (const card of cards()) card.refresh();
  follow(followed);
  count();
}

function renderModel() {
  const { name, classes, engine, paddle, digest } = model;
  byId("lead").textContent = text("lead", { name, count: classes.length });
  byId("limits").textContent = text("limits", { megabytes: number(limits.bytes / 1e6), megapixels: number(limits.pixels / 1e6), myriads: String(Math.round(limits.pixels / 1e4)) });
  byId("known").hidden = false;
  byId("class-count").textContent = text("known", { count: classes.length });
  renderClasses();
  byId("model").textContent = text("model", { name, engine, paddle, digest: (digest ?? "").slice(0, 12) });
  document.documentElement.style.setProperty("--threshold", model.threshold ?? -1);
  document.body.classList.toggle("has-threshold", model.threshold != null);
  renderLessons(model);
}

function renderClasses() {
  const { classes } = model, button = byId("all-classes"), open = button.ariaExpanded === "true";
  const shown = open ? classes.length : SHOWN_CLASSES;
  byId("classes").replaceChildren(...classes.slice(0, shown).map((name) => Object.assign(document.createElement("li"), { textContent: name })));
  button.hidden = classes.length <= SHOWN_CLASSES;
  button.textContent = open ? text("fewer_classes") : text("all_classes", { count: classes.length });
}

/** Fetches the model, and retries while the server is starting or gone. */
function loadModel() {
  loading ??= fetchUntilReady().finally(() => (loading = null));
  return loading;
}

async function fetchUntilReady() {
  while (!(await askForModel()) && mayPass(trouble)) {
    await new Promise((resolve) => setTimeout(resolve, pause(trouble) * 1000));
  }
}

const mayPass = (error) => error.again && error.status !== 401;
const pause = (error) => error.seconds || 5;
const isGone = () => trouble?.status === 0;

/** Fetches the model once; what is wrong stands in the banner. Returns whether there is a model. */
function askForModel() {
  asking ??= fetchModel()
    .then(accept, (error) => (trouble = error))
    .then(() => !trouble)
    .finally(() => {
      asking = null;
      renderTrouble();
    });
  return asking;
}

function accept(found) {
  if (isGone() && model) say(text("back"));
  trouble = null;
  // A run beside the model may become ready later.
  if (model?.digest === found.digest && model.gradcam === found.gradcam) return;
  if (model && model.digest !== found.digest) {
    isChanged = true;
    say(text("new_model"));
  }
  model = found;
  // Part of the body is not images.
  Object.assign(limits, model.limits, { bytes: model.limits.body_mb * 1e6 * 0.99 });
  render();
}

function renderTrouble() {
  const banner = byId("banner"), notice = byId("notice");
  banner.hidden = !trouble;
  if (isGone()) banner.textContent = text("gone", { seconds: pause(trouble) });
  else if (trouble) banner.textContent = trouble.message + (mayPass(trouble) ? ` ${text("starting", { seconds: pause(trouble) })}` : "");
  notice.hidden = !isChanged;
  notice.textContent = isChanged ? text("new_model") : "";
}

/** Takes note of a response: of its time, that the server is there, and of its model. */
async function responded({ digest, milliseconds: elapsed }) {
  milliseconds = elapsed;
  if (trouble || digest !== model.digest) await askForModel();
}

/** Why a request failed: a sentence, or "" where the banner says it once for all. */
async function reason(error) {
  milliseconds = null;
  if (error.status !== 0) return error.message;
  await askForModel();
  if (!isGone()) return error.message;
  loadModel();
  return "";
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
  const writes = event.target.matches?.("input:not([type=radio])");
  if (removed.length && !writes && (event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z") {
    event.preventDefault();
    return undo();
  }
  const card = event.target.closest?.(".card")?.card;
  if (!card || event.altKey || event.ctrlKey || event.metaKey || event.target.matches(".relabel *")) return;
  if (event.key === "Delete" || event.key === "Backspace") remove([card]);
  else if (event.key === "Escape" && event.target !== card.element) card.element.focus();
  else if (event.target !== card.element) return;
  else if (event.key === "Enter") card.turn();
  else {
    const next = neighbour(card.element, event.key);
    if (!next) return;
    next.focus();
  }
  event.preventDefault();
}

onToken(askForToken);
listen(take);
camera.prepare(take);
byId("drop").addEventListener("click", (event) => {
  if (event.target.closest("#choose") || !event.target.closest("button, input")) byId("files").click();
});
byId("camera").addEventListener("click", () => camera.open());
byId("clear").addEventListener("click", () => remove(cards()));
byId("undo").addEventListener("click", undo);
byId("retry").addEventListener("click", () => retry(cards().filter((card) => card.retriable)));
byId("language").addEventListener("click", () => {
  switchLanguage();
  render();
});
byId("all-classes").addEventListener("click", () => {
  const button = byId("all-classes");
  button.ariaExpanded = String(button.ariaExpanded !== "true");
  renderClasses();
});
byId("token-cancel").addEventListener("click", () => byId("token").close());
document.addEventListener("keydown", keys);
// A page that comes to the front again may have a model that was replaced meanwhile.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && model && !loading) askForModel();
});
followFocus(list);
render();
loadModel();
