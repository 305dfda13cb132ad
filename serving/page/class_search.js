// Search for one class among many: type to filter, arrow keys and Enter, or a click, to choose.

import { text } from "./language.js";

const SHOWN = 50;
let lists = 0;

/** A combobox: `input` with its `list` of options, and `note`, which says how many classes match. */
export class ClassSearch {
  constructor(input, list, note) {
    Object.assign(this, { input, list, note, names: [], active: -1 });
    list.id = `class-list-${lists++}`;
    input.setAttribute("aria-controls", list.id);
    input.addEventListener("input", () => this.#open(true));
    input.addEventListener("click", () => this.#open());
    input.addEventListener("blur", () => this.close());
    input.addEventListener("keydown", (event) => this.#key(event));
    // The field keeps the focus.
    list.addEventListener("mousedown", (event) => event.preventDefault());
    list.addEventListener("click", (event) => this.#choose(event.target.closest("li")));
  }

  /** Starts a search among these class names. */
  start(names) {
    this.names = names;
    this.input.focus();
    this.#open();
  }

  /** Renders its texts in the current language. */
  render() {
    this.input.placeholder = text("relabel_choose");
    this.list.ariaLabel = text("relabel_ask");
    this.#check();
    if (!this.list.hidden) this.#count();
  }

  close() {
    this.list.hidden = true;
    this.note.textContent = "";
    this.input.ariaExpanded = "false";
    this.#activate(-1);
  }

  #matches() {
    const sought = this.input.value.trim().toLocaleLowerCase();
    const place = (name) => name.toLocaleLowerCase().indexOf(sought);
    const found = this.names.filter((name) => place(name) >= 0);
    return [...found.filter((name) => place(name) === 0), ...found.filter((name) => place(name) > 0)];
  }

  // While text is typed the first match is active: Enter takes it.
  #open(typed = false) {
    this.found = this.#matches();
    this.list.replaceChildren(...this.found.slice(0, SHOWN).map((name, index) => {
      const option = Object.assign(document.createElement("li"), { id: `${this.list.id}-${index}`, role: "option", textContent: name, title: name });
      option.ariaSelected = "false";
      return option;
    }));
    this.list.hidden = !this.found.length;
    this.input.ariaExpanded = String(!this.list.hidden);
    this.#activate(typed && this.input.value.trim() && this.found.length ? 0 : -1);
    this.#count();
    this.#check();
  }

  #count() {
    const count = this.found.length;
    this.note.textContent = !count ? text("no_such_class") : count > SHOWN ? text("classes_found", { shown: SHOWN, count }) : "";
  }

  #check() {
    this.input.setCustomValidity(this.names.includes(this.input.value) ? "" : text("relabel_choose"));
  }

  #activate(index) {
    this.list.children[this.active]?.setAttribute("aria-selected", "false");
    this.active = index;
    const option = this.list.children[index];
    option?.setAttribute("aria-selected", "true");
    option?.scrollIntoView({ block: "nearest" });
    if (option) this.input.setAttribute("aria-activedescendant", option.id);
    else this.input.removeAttribute("aria-activedescendant");
  }

  #choose(option) {
    if (!option) return;
    this.input.value = option.textContent;
    this.close();
    this.#check();
  }

  #key(event) {
    // Enter and arrow keys belong to the input method while it composes.
    if (event.isComposing) return;
    const open = !this.list.hidden, last = this.list.children.length - 1;
    if (event.key === "Enter" && open && this.active >= 0) this.#choose(this.list.children[this.active]);
    else if (event.key === "Escape" && open) {
      event.stopPropagation();
      this.close();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const down = event.key === "ArrowDown";
      if (!open) this.#open();
      if (down) this.#activate(this.active < last ? this.active + 1 : 0);
      else this.#activate(this.active > 0 ? this.active - 1 : last);
    } else return;
    event.preventDefault();
  }
}
