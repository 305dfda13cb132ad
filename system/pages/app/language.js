// Language of the page: the user's choice, else the browser's. Numbers follow it too.

import { en, zh } from "./texts.js";

const KEY = "language";
const languages = { en, zh };
let language = storedChoice() ?? navigator.languages.map((name) => name.slice(0, 2)).find((name) => name in languages) ?? "en";

// A browser may forbid storage: the choice then lasts until the page is closed.
function storedChoice() {
  try {
    const name = localStorage.getItem(KEY);
    return name in languages ? name : null;
  } catch {
    return null;
  }
}

/** Switches to the other language and stores the choice. */
export function switchLanguage() {
  language = language === "en" ? "zh" : "en";
  try {
    localStorage.setItem(KEY, language);
  } catch {
    // see storedChoice()
  }
}

/** The text of a key with values filled in; numbers are formatted for the language. */
export function text(key, values = {}) {
  const found = languages[language][key];
  if (typeof found !== "function") return found;
  const written = Object.entries(values).map(([name, value]) => [name, typeof value === "number" ? number(value) : value]);
  return found(Object.fromEntries(written));
}

/** Formats a number with at most this many decimals. */
export function number(value, decimals = 0) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: decimals }).format(value);
}

/** Formats a probability as a percentage; never as 0 % or 100 %, for no prediction is certain. */
export function percent(value) {
  const format = new Intl.NumberFormat(language, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
  if (value > 0.999) return `> ${format.format(0.999)}`;
  return value < 0.001 ? `< ${format.format(0.001)}` : format.format(value);
}

/** Fills in the texts of all elements that name one: data-text as content, data-label as label. */
export function translate(root) {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  for (const element of root.querySelectorAll("[data-label]")) element.ariaLabel = text(element.dataset.label);
}
