// Grid of thumbnails for several decisions at once. Only the rows near the screen exist; thousands cost what dozens do.

import { load, show, shownDigest, THUMBNAIL } from "./images.js";
import { text } from "./language.js";
import { decided, fileName } from "./words.js";

const CELL = 8.4, CELL_HEIGHT = 11.5, GAP = 0.6, ROWS = 6; // rem; rows that are made and removed together
const cells = document.getElementById("cells");

export class Grid {
  /** `changed()` is called after every change of the selection, `open(entry)` to see one image alone. */
  constructor(store, { changed, open }) {
    Object.assign(this, { store, changed, open, entries: [], selected: new Set(), focused: 0, anchor: 0, columns: 1 });
    this.observer = new IntersectionObserver((seen) => seen.forEach((one) => this.#chunkSeen(one)), { rootMargin: "600px" });
    // Rows beyond the screen are loaded before they are seen.
    this.sight = new IntersectionObserver((seen) => seen.forEach(({ target, isIntersecting }) => {
      target.dataset.sight = isIntersecting ? "yes" : "";
      this.#seen(target);
    }), { threshold: 0.5 });
    new ResizeObserver(() => this.#layOut()).observe(cells);
    cells.addEventListener("click", (event) => this.#click(event));
    cells.addEventListener("dblclick", (event) => this.#opened(event.target));
    cells.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Fills the grid with the images of items, each once: [{path, suggested, item}]. */
  fill(items) {
    const known = new Map();
    for (const item of items) {
      item.images.forEach((path, number) => known.has(path) || known.set(path, { path, suggested: item.suggested[number], item }));
    }
    this.entries = [...known.values()];
    this.selected.clear();
    this.focused = this.anchor = 0;
    this.columns = 0;
    this.#layOut();
  }

  /** The entries that are selected, in their order. */
  get chosen() {
    return this.entries.filter((entry) => this.selected.has(entry.path));
  }

  /** Those that "all" selects: shown so far, and not decided. */
  get selectable() {
    return this.entries.filter(({ path }) => shownDigest(path) !== undefined && !this.store.decisions.has(path));
  }

  selectAll() {
    this.selected = new Set(this.selectable.map(({ path }) => path));
    this.render();
  }

  selectNone() {
    this.selected.clear();
    this.render();
  }

  /** Removes images from the selection, whose files have to be looked at again. */
  reload(paths) {
    for (const path of paths) this.selected.delete(path);
    for (const cell of cells.querySelectorAll("[data-index]")) {
      if (paths.includes(this.entries[cell.dataset.index].path)) this.#picture(cell, this.entries[cell.dataset.index]);
    }
    this.render();
  }

  /** Shows selection and decisions. */
  render() {
    for (const cell of cells.querySelectorAll("[data-index]")) this.#describe(cell, this.entries[cell.dataset.index]);
    this.changed();
  }

  focus() {
    this.#focus(this.focused);
  }

  #layOut() {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const columns = Math.max(1, Math.floor((cells.clientWidth / rem + GAP) / (CELL + GAP)));
    if (!cells.clientWidth || columns === this.columns) return;
    this.columns = columns;
    cells.style.setProperty("--columns", columns);
    this.observer.disconnect();
    this.sight.disconnect();
    const size = columns * ROWS, count = Math.ceil(this.entries.length / size);
    cells.replaceChildren(...Array.from({ length: count }, (_, number) => {
      const chunk = Object.assign(document.createElement("div"), { className: "chunk", role: "presentation" });
      const rows = Math.ceil(Math.min(size, this.entries.length - number * size) / columns);
      chunk.style.height = `${rows * (CELL_HEIGHT + GAP)}rem`;
      chunk.dataset.start = number * size;
      return chunk;
    }));
    for (const chunk of cells.children) this.observer.observe(chunk);
    this.changed();
  }

  #chunkSeen({ target: chunk, isIntersecting }) {
    if (isIntersecting) this.#fillChunk(chunk);
    else if (!chunk.contains(document.activeElement)) {
      for (const cell of chunk.children) this.sight.unobserve(cell);
      chunk.replaceChildren();
    }
  }

  #fillChunk(chunk) {
    if (chunk.childElementCount) return;
    const start = Number(chunk.dataset.start), shown = this.entries.slice(start, start + this.columns * ROWS);
    chunk.append(...shown.map((entry, number) => this.#cell(entry, start + number)));
  }

  #cell(entry, index) {
    const cell = Object.assign(document.createElement("div"), { className: "cell", role: "option", tabIndex: index === this.focused ? 0 : -1 });
    cell.dataset.index = index;
    cell.ariaSetSize = this.entries.length;
    cell.ariaPosInSet = index + 1;
    for (const name of ["thumb", "name", "note"]) cell.append(Object.assign(document.createElement("span"), { className: name }));
    this.#describe(cell, entry);
    this.#picture(cell, entry);
    this.sight.observe(cell);
    return cell;
  }

  #describe(cell, { path, suggested }) {
    const image = this.store.images[path], decision = this.store.decisions.get(path);
    const what = decision ? decided(decision, image) : "";
    cell.ariaSelected = `${this.selected.has(path)}`;
    cell.title = path;
    cell.classList.toggle("decided", Boolean(decision));
    cell.querySelector(".name").textContent = image.label || fileName(path);
    cell.querySelector(".note").textContent = what || (suggested ? `→ ${suggested}` : image.split);
  }

  async #picture(cell, { path }) {
    const thumb = cell.querySelector(".thumb");
    try {
      const { digest, url, error } = await load(path, THUMBNAIL, () => cell.isConnected);
      if (!cell.isConnected) return;
      const image = new Image();
      if (error) thumb.replaceChildren(text("broken", { detail: error }));
      else {
        image.alt = fileName(path);
        image.src = url;
        await image.decode();
        image.classList.toggle("pixels", Math.max(image.naturalWidth, image.naturalHeight) <= 96);
        thumb.replaceChildren(image);
      }
      if (!cell.isConnected) return;
      cell.dataset.digest = digest;
      this.#seen(cell);
    } catch (error) {
      if (!cell.isConnected) return;
      // It was scrolled past, and back, before its turn came.
      if (error.unwanted) return this.#picture(cell, { path });
      thumb.textContent = error.message;
    }
  }

  /** Notes that the person sees an image, once it is loaded and on the screen. */
  #seen({ dataset: { index, digest, sight } }) {
    if (digest === undefined || !sight) return;
    show(this.entries[index].path, digest);
    this.changed();
  }

  #toggle(index, upTo) {
    const { path } = this.entries[index];
    if (upTo) {
      const [low, high] = [Math.min(index, this.anchor), Math.max(index, this.anchor)];
      for (const entry of this.entries.slice(low, high + 1)) this.selected.add(entry.path);
    } else {
      if (!this.selected.delete(path)) this.selected.add(path);
      this.anchor = index;
    }
    this.render();
  }

  #focus(index) {
    this.focused = Math.max(0, Math.min(index, this.entries.length - 1));
    const chunk = [...cells.children].findLast((one) => Number(one.dataset.start) <= this.focused);
    if (!chunk) return;
    this.#fillChunk(chunk);
    for (const cell of cells.querySelectorAll("[tabindex='0']")) cell.tabIndex = -1;
    const cell = cells.querySelector(`[data-index='${this.focused}']`);
    cell.tabIndex = 0;
    cell.focus();
    cell.scrollIntoView({ block: "nearest" });
  }

  #click(event) {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    this.#focus(Number(cell.dataset.index));
    this.#toggle(this.focused, event.shiftKey);
  }

  #opened(target) {
    const cell = target.closest(".cell");
    if (cell) this.open(this.entries[cell.dataset.index]);
  }

  #key(event) {
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns, PageDown: 4 * this.columns, PageUp: -4 * this.columns, Home: -this.focused, End: this.entries.length };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves) this.#focus(this.focused + moves[event.key]);
    else if (event.key === " ") this.#toggle(this.focused, event.shiftKey);
    else if (event.key === "Enter") this.#opened(event.target);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
