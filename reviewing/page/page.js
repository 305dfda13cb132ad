// The page: queues, the item or the grid, and what a key or a button does.

import { act, onDecided } from "./deciding.js";
import { Grid } from "./grid.js";
import { keyOf, lettersDecide, showKeys } from "./keys.js";
import { switchLanguage, text, translate } from "./language.js";
import { changes, review } from "./server.js";
import { prefetch, render as renderSingle } from "./single.js";
import { DECIDED, Store } from "./store.js";
import { decided, fileName } from "./words.js";

const LOG_LINES = 20;
const byId = (id) => document.getElementById(id);
const buttons = [...document.querySelectorAll("#actions button")];

let store = null, grid = null, inGrid = false, chosen = 0;

/** Shows a sentence: an error where `bad`; screen readers hear it. */
function say(sentence, bad = false) {
  byId("banner").hidden = !bad;
  if (bad) byId("banner").textContent = sentence;
  else {
    byId("log").append(Object.assign(document.createElement("p"), { textContent: sentence }));
    while (byId("log").childElementCount > LOG_LINES) byId("log").firstChild.remove();
  }
}

function renderQueues() {
  const focused = document.activeElement?.dataset.queue;
  byId("queues").replaceChildren(...store.names().map((name) => {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    const all = store.itemsOf(name).length, count = Object.assign(document.createElement("span"), { className: "count" });
    count.textContent = name === DECIDED ? text("number", { count: all }) : text("queue_count", { left: store.left(name), all });
    button.append(text(name), count);
    button.dataset.queue = name;
    button.ariaCurrent = name === store.queue ? "true" : null;
    button.addEventListener("click", () => openQueue(name));
    return button;
  }));
  if (focused) byId("queues").querySelector(`[data-queue="${focused}"]`)?.focus();
}

function renderCount() {
  const here = store.itemsOf(store.queue).length, { done, all } = store.total();
  byId("count").textContent = text("count", { place: Math.min(store.index + 1, here), here, left: store.left(store.queue), done, all });
  byId("progress").value = all ? done / all : 1;
}

function renderButtons() {
  const item = store.item, entries = targets("drop"), paths = entries.map(({ path }) => path);
  const isPair = !inGrid && item?.images.length === 2, isReject = paths.length > 0 && paths.every((path) => store.images[path].reason);
  const suggested = new Set(entries.map((entry) => entry.suggested));
  const labels = {
    keep: text(isPair ? "keep_both" : isReject ? "let_in" : "keep"),
    accept: suggested.size === 1 && entries[0].suggested ? text(isPair ? "accept_this" : "accept_name", { name: entries[0].suggested, number: chosen + 1 }) : text("accept"),
    drop: text(isPair ? "drop_this" : isReject ? "stay_out" : "drop", { number: chosen + 1 }),
  };
  for (const button of buttons) {
    const { action, key } = button.dataset;
    const kbd = Object.assign(document.createElement("kbd"), { textContent: { ArrowLeft: "←", ArrowRight: "→" }[key] ?? key.toUpperCase() });
    kbd.ariaHidden = "true";
    button.replaceChildren(labels[action] ?? text(action), kbd);
    button.setAttribute("aria-keyshortcuts", key.length === 1 ? key.toUpperCase() : key);
    button.disabled = isUnavailable(action, entries);
    if (action === "take_back") button.hidden = button.disabled;
    if (["previous", "skip", "next"].includes(action)) button.hidden = inGrid;
  }
  byId("mode").textContent = text(inGrid ? "one_by_one" : "grid");
}

function isUnavailable(action, entries) {
  if (action === "undo") return false;
  if (["next", "previous", "skip"].includes(action)) return inGrid || (action !== "previous" && !store.item);
  if (!entries.length) return true;
  if (action === "accept") return !entries.some((entry) => entry.suggested);
  if (action === "class") return entries.some(({ path }) => ![undefined, "", "dropped"].includes(store.images[path].reason));
  return action === "take_back" && !entries.some(({ path }) => store.decisions.has(path));
}

/** What an action is about: the selected images, or of the item shown the chosen image; all of a pair where both are kept. */
function targets(action) {
  if (inGrid) return grid.chosen;
  const item = store.item;
  if (!item) return [];
  const all = item.images.map((path, number) => ({ path, suggested: item.suggested[number], item }));
  return action === "keep" ? all : [all[Math.min(chosen, all.length - 1)]];
}

function render() {
  renderQueues();
  renderCount();
  const item = store.item;
  byId("single").hidden = inGrid || !item;
  byId("grid").hidden = !inGrid;
  byId("empty").hidden = inGrid || Boolean(item);
  if (!inGrid && item) {
    renderSingle(item, store, chosen, (number) => {
      chosen = number;
      render();
      document.querySelectorAll("#shots .frame")[number]?.focus();
    });
    prefetch(store.itemsOf(store.queue)[store.firstLeft(store.index + 1)]);
  } else if (!inGrid) renderEmpty();
  renderButtons();
}

function renderEmpty() {
  const next = store.nextQueue(), skipped = store.skippedHere;
  byId("empty-why").textContent = !next && !store.total().left ? text("nothing") : skipped ? text("done_skipped", { count: skipped }) : text("done_all");
  byId("skipped").hidden = !skipped;
  byId("skipped").textContent = text("show_skipped", { count: skipped });
  byId("next-queue").hidden = !next;
  if (next) byId("next-queue").textContent = text("next_queue", { name: text(next) });
}

function openQueue(name) {
  if (!name) return;
  store.queue = name;
  chosen = 0;
  if (inGrid) fillGrid();
  render();
}

function fillGrid() {
  grid.fill(store.itemsOf(store.queue).filter((item) => !item.done));
}

function setMode(value) {
  inGrid = value;
  render();
  if (inGrid) {
    fillGrid();
    grid.focus();
  }
}

function gridChanged() {
  if (!inGrid) return;
  const all = grid.selectable.length;
  byId("selected").textContent = text("selected", { count: grid.selected.size });
  byId("select-all").textContent = text("select_all", { count: all });
  byId("select-all").disabled = !all;
  byId("select-none").disabled = !grid.selected.size;
  renderButtons();
}

function go(step) {
  store.index = store.index + step;
  chosen = 0;
  render();
}

function skip() {
  if (!store.item) return;
  store.skipped.add(store.item);
  store.advance();
  chosen = 0;
  render();
}

/** After decisions, own or others': `moved` if the person decided and goes on. */
onDecided(({ action, paths, moved, className }) => {
  const left = store.left(store.queue), count = paths.length;
  if (moved) {
    const what = action === "take_back" ? text("taken_back") : decided({ action: action === "accept" || action === "class" ? "relabel" : action, class: className }, store.images[paths[0]]);
    say(count === 1 ? text("announced", { what, file: fileName(paths[0]), left }) : text("announced_many", { what, count, left }));
    byId("banner").hidden = true;
    if (inGrid) grid.selected.clear();
    else if (store.item?.done || store.queue === DECIDED) {
      if (action !== "take_back") store.advance();
      chosen = 0;
    } else if (store.item?.images.length === 2) chosen = 1 - chosen;
  }
  render();
  if (inGrid) grid.render();
});

async function perform(action) {
  if (action === "previous" || action === "next") return go(action === "next" ? 1 : -1);
  if (action === "skip") return skip();
  const button = buttons.find((one) => one.dataset.action === action);
  if (button.disabled) return inGrid && !grid.selected.size ? say(text("none_selected"), true) : undefined;
  const refused = await act(action, targets(action), store, say);
  if (!refused) return;
  render();
  if (inGrid) grid.reload(refused);
}

const KEYS = {
  g: () => setMode(!inGrid),
  q: () => openQueue(store.nextQueue()),
  1: () => choose(0),
  2: () => choose(1),
  "?": () => showKeys(buttons),
};

function choose(number) {
  if (inGrid || store.item?.images.length !== 2) return;
  chosen = number;
  render();
}

function pressed(event) {
  if (!store || document.querySelector("dialog[open]") || event.isComposing || event.repeat) return;
  const key = keyOf(event), control = event.ctrlKey || event.metaKey;
  if (control && key === "z" && !event.shiftKey) return run(event, () => perform("undo"));
  if (control && key === "a" && inGrid) return run(event, () => grid.selectAll());
  if (control || event.altKey || event.target.matches?.("input")) return;
  if (key === "Escape" && inGrid) return run(event, () => (grid.selected.size ? grid.selectNone() : setMode(false)));
  if (key.length === 1 && !lettersDecide()) return;
  const button = buttons.find((one) => one.dataset.key === key);
  if (button) return run(event, () => perform(button.dataset.action));
  if (key in KEYS) run(event, KEYS[key]);
}

function run(event, action) {
  event.preventDefault();
  action();
}

function renderTexts() {
  translate(document);
  document.title = text("title");
  byId("language").textContent = text("other_language");
  byId("language").lang = document.documentElement.lang === "en" ? "zh-CN" : "en";
  if (!store) return;
  byId("lead").textContent = text("lead", store);
  byId("file").textContent = text("file", store);
  const left = Object.entries(store.left_out).filter(([, count]) => count).map(([reason, count]) => text(`left_out_${reason}`, { count }));
  byId("left-out").hidden = !left.length;
  byId("left-out").textContent = text("left_out", { what: left.join(text("and")) });
  render();
  if (inGrid) grid.render();
}

async function refresh() {
  if (!store || document.hidden) return;
  try {
    store.apply(await changes(store.version));
    render();
    if (inGrid) grid.render();
  } catch (error) {
    say(error.message, true);
  }
}

async function start() {
  // The token in the address was for once, and does not belong into the history.
  history.replaceState(null, "", location.pathname);
  renderTexts();
  try {
    store = new Store(await review());
  } catch (error) {
    return say(error.message, true);
  }
  grid = new Grid(store, { changed: gridChanged, open: ({ item }) => {
    store.index = store.itemsOf(store.queue).indexOf(item);
    setMode(false);
  } });
  renderTexts();
}

for (const button of buttons) button.addEventListener("click", () => perform(button.dataset.action));
byId("mode").addEventListener("click", () => setMode(!inGrid));
byId("select-all").addEventListener("click", () => grid.selectAll());
byId("select-none").addEventListener("click", () => grid.selectNone());
byId("next-queue").addEventListener("click", () => openQueue(store.nextQueue()));
byId("skipped").addEventListener("click", () => {
  store.skipped.clear();
  store.index = store.firstLeft(0);
  render();
});
byId("help").addEventListener("click", () => showKeys(buttons));
byId("language").addEventListener("click", () => {
  switchLanguage();
  renderTexts();
});
document.addEventListener("keydown", pressed);
document.addEventListener("visibilitychange", refresh);
start();
