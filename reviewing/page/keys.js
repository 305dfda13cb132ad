// Keys: which one was pressed, the list of them, and whether letters decide.

import { text } from "./language.js";

const LETTERS = "letters";
const byId = (id) => document.getElementById(id);

/** Whether letter keys decide: people who dictate, or whose hands slip, switch them off. */
export const lettersDecide = () => localStorage[LETTERS] !== "off";

/** Name of the key of an event, letters in lower case. */
export function keyOf(event) {
  // Where the keyboard writes other letters, the place of the key counts.
  return /^[\x20-\x7e]$/.test(event.key) ? event.key.toLowerCase() : event.code.startsWith("Key") && event.key.length === 1 ? event.code[3].toLowerCase() : event.key;
}

/** Opens the list of keys: those of the buttons, and the others. */
export function showKeys(buttons) {
  const rows = [
    ...buttons.map((button) => [button.querySelector("kbd").textContent, text(button.dataset.action)]),
    ["1 2", text("key_choose")], ["G", text("key_grid")], ["Q", text("key_queue")], [text("space"), text("key_space")],
    ["Ctrl A, Esc", text("key_all")], ["Enter", text("key_enter")], ["?", text("key_help")],
  ];
  byId("key-list").replaceChildren(...rows.flatMap(([key, what]) => {
    const term = document.createElement("dt");
    term.append(Object.assign(document.createElement("kbd"), { textContent: key }));
    return [term, Object.assign(document.createElement("dd"), { textContent: what })];
  }));
  byId("letters").checked = lettersDecide();
  byId("keys").showModal();
}

byId("keys-close").addEventListener("click", () => byId("keys").close());
byId("letters").addEventListener("change", (event) => (localStorage[LETTERS] = event.target.checked ? "on" : "off"));
