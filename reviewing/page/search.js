// Dialog in which a class is chosen: by typing a part of its name, or its number.

import { text } from "./language.js";

const MOST_SHOWN = 60;
const byId = (id) => document.getElementById(id);
const dialog = byId("classes"), input = byId("class-search"), list = byId("class-list");
let names = [], shown = [], active = 0, close = () => {};

/** Asks for a class; resolves to its name, or null. */
export function askForClass(classNames, count) {
  names = classNames;
  byId("classes-title").textContent = text("class_title", { count });
  input.value = "";
  search();
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    close = (name) => {
      close = () => {};
      dialog.close();
      resolve(name);
    };
  });
}

/** Indices of the classes that a text names, the best first: equal names, the number, beginnings, parts. */
export function matches(classNames, typed) {
  const wanted = typed.trim().toLowerCase();
  const ranks = classNames.map((name, index) => {
    const low = name.toLowerCase();
    if (low === wanted) return 0;
    if (`${index + 1}` === wanted) return 1;
    if (low.startsWith(wanted)) return 2;
    return low.includes(wanted) ? 3 : 4;
  });
  return [...classNames.keys()].filter((index) => ranks[index] < 4).sort((one, other) => ranks[one] - ranks[other] || one - other);
}

function search() {
  const found = matches(names, input.value);
  shown = found.slice(0, MOST_SHOWN);
  active = 0;
  list.replaceChildren(...shown.map((index, row) => {
    const option = Object.assign(document.createElement("li"), { id: `class-${row}`, role: "option" });
    const number = Object.assign(document.createElement("span"), { textContent: `${index + 1}` });
    option.append(number, names[index]);
    option.addEventListener("click", () => close(names[index]));
    return option;
  }));
  byId("class-count").textContent = text("class_count", { shown: found.length, all: names.length });
  byId("class-use").disabled = !found.length;
  mark();
}

function mark() {
  for (const [row, option] of [...list.children].entries()) option.ariaSelected = `${row === active}`;
  input.setAttribute("aria-activedescendant", shown.length ? `class-${active}` : "");
  list.children[active]?.scrollIntoView({ block: "nearest" });
}

function use() {
  if (shown.length) close(names[shown[active]]);
}

input.addEventListener("input", search);
input.addEventListener("keydown", (event) => {
  // Enter that ends the input of Chinese characters chooses nothing yet.
  if (event.isComposing) return;
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 };
  if (event.key === "Enter") use();
  else if (event.key in steps) {
    active = Math.max(0, Math.min(shown.length - 1, active + steps[event.key]));
    mark();
  } else return;
  event.preventDefault();
});
byId("class-use").addEventListener("click", use);
byId("class-cancel").addEventListener("click", () => close(null));
dialog.addEventListener("close", () => close(null));
