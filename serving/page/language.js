// Which language the page speaks: the one its reader chose, else the browser's. Numbers are written in it too.

import { en, zh } from "./texts.js";

const KEY = "language";
const spoken = { en, zh };
let language = kept() ?? navigator.languages.map((name) => name.slice(0, 2)).find((name) => name in spoken) ?? "en";

// A browser may forbid storage: then the choice lasts until the page is left.
function kept() {
  try {
    const name = localStorage.getItem(KEY);
    return name in spoken ? name : null;
  } catch {
    return null;
  }
}

/** Changes to the other language, and keeps the choice. */
export function switchLanguage() {
  language = language === "en" ? "zh" : "en";
  try {
    localStorage.setItem(KEY, language);
  } catch {
    // see kept()
  }
}

/** The text of a key, with values put in; numbers among them are written as the language writes them. */
export function text(key, values = {}) {
  const found = spoken[language][key];
  if (typeof found !== "function") return found;
  const written = Object.entries(values).map(([name, value]) => [name, typeof value === "number" ? number(value) : value]);
  return found(Object.fromEntries(written));
}

/** A number with at most so many decimals. */
export function number(value, decimals = 0) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: decimals }).format(value);
}

/** A probability as a percentage. None is written as 0 or 100 %, for no answer is certain. */
export function percent(value) {
  const format = new Intl.NumberFormat(language, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
  if (value > 0.999) return `> ${format.format(0.999)}`;
  return value < 0.001 ? `< ${format.format(0.001)}` : format.format(value);
}

/** Puts the texts into every element that names one: data-text as its content, data-label as its label. */
export function translate(root) {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  for (const element of root.querySelectorAll("[data-label]")) element.ariaLabel = text(element.dataset.label);
}
