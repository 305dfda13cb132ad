// One image on the page: its views, its prediction, and the report of a wrong one.

import { number, percent, text } from "./language.js";
import { ClassSearch } from "./class_search.js";
import { copy, digest, drawBoth } from "./pixels.js";
import { gradcam, relabel } from "./server.js";

const template = document.getElementById("card");
// Names with more characters are shown smaller.
const LONG = 40;
let cards = 0;

/** Fills a list with one bar per class; press(class), if given, is called when a class name is pressed. */
export function drawBars(list, prediction, press = null, pressed = null) {
  list.replaceChildren(...prediction.top.map(({ class: name, probability }) => {
    const row = document.createElement("li"), label = document.createElement(press ? "button" : "span");
    const track = document.createElement("span"), bar = document.createElement("i"), share = document.createElement("span");
    label.className = "label";
    label.textContent = label.title = name;
    if (press) {
      Object.assign(label, { type: "button", title: text("heat_for", { name }), ariaPressed: String(name === pressed) });
      label.addEventListener("click", () => press(name));
    }
    track.className = "track";
    bar.style.width = `${100 * probability}%`;
    track.append(bar);
    share.className = "share";
    share.textContent = percent(probability);
    row.append(label, track, share);
    return row;
  }));
  list.classList.toggle("rejected", prediction.none_of_these);
}

/** An image and its state. `on`: the callbacks changed, remove, retry, reason and model of the page. */
export class Card {
  constructor(file, name, model, on) {
    Object.assign(this, { file, name, model, on, state: "waiting", prediction: null, sentence: "", again: false, removed: false });
    Object.assign(this, { size: null, view: "image", heatClass: null, heats: new Map(), reported: null, digest: null, isStop: false });
    this.element = template.content.cloneNode(true).firstElementChild;
    this.element.card = this;
    this.number = cards++;
    this.search = new ClassSearch(this.find(".class"), this.find(".options"), this.find(".found"));
    this.#listen();
    this.render();
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  /** Decodes and draws the image; a file that the browser cannot show may still be an image to the server. */
  async prepare() {
    this.size = await drawBoth(this.file, this.find(".image"), this.find(".pixels"), this.model);
    this.find(".blank").hidden = this.size !== null;
    this.render();
  }

  /** Applies a change of state, and announces it where it is final. */
  show(change) {
    if (change.prediction) this.free();
    Object.assign(this, { sentence: "", again: false }, change);
    if (this.removed) return;
    this.render();
    if (this.state === "predicted" || this.state === "failed") this.on.changed(this);
  }

  /** Whether its prediction is not one of the model that is served now. */
  get stale() {
    return this.state === "predicted" && this.digest !== this.on.model()?.digest;
  }

  /** Whether it can be sent once more. */
  get retriable() {
    return this.again || this.stale;
  }

  /** Makes Tab reach the card and its controls, or not. */
  set stop(value) {
    this.isStop = value;
    for (const control of [this.element, ...this.element.querySelectorAll("button, input")]) control.tabIndex = value ? 0 : -1;
  }

  get headline() {
    if (this.state !== "predicted") return this.state === "failed" ? text("no_prediction") : text(this.state);
    return this.prediction.none_of_these ? text("none_of_these") : this.prediction.class;
  }

  get announcement() {
    if (this.sentence) return text("announced_error", { name: this.name, sentence: this.sentence });
    if (this.state !== "predicted") return `${this.name}: ${this.headline}`;
    const line = text("announced", { name: this.name, headline: this.headline, probability: percent(this.prediction.top[0].probability) });
    return this.stale ? text("announced_earlier", { line }) : line;
  }

  /** Renders everything in the current language. */
  render() {
    this.element.dataset.state = this.state;
    this.element.ariaLabel = this.announcement;
    this.element.ariaBusy = String(this.state === "waiting" || this.state === "sending");
    Object.assign(this.find(".prediction b"), { textContent: this.headline, title: this.headline });
    this.find(".prediction").classList.toggle("long", this.headline.length > LONG);
    this.find(".prediction").classList.toggle("rejected", Boolean(this.prediction?.none_of_these));
    const accepted = this.state === "predicted" && !this.prediction.none_of_these;
    this.find(".prediction span").textContent = accepted ? percent(this.prediction.top[0].probability) : "";
    const sentence = this.find(".sentence");
    sentence.textContent = this.sentence || (this.stale ? text("earlier") : "");
    sentence.hidden = !sentence.textContent;
    sentence.classList.toggle("earlier", this.stale && !this.sentence);
    Object.assign(this.find(".retry"), { textContent: text(this.stale ? "classify_again" : "retry"), hidden: !this.retriable });
    Object.assign(this.find(".remove"), { ariaLabel: text("remove", { name: this.name }), title: text("remove", { name: this.name }) });
    Object.assign(this.find(".name"), { textContent: this.name, title: this.name });
    this.find(".blank").textContent = text("unshown");
    this.#renderBars();
    this.#renderViews();
    this.#renderRelabel();
    this.stop = this.isStop;
  }

  // The server has heat maps of its present model only.
  get #explains() {
    return this.state === "predicted" && this.on.model()?.gradcam && !this.stale;
  }

  #renderBars() {
    if (this.state !== "predicted") return this.find(".bars").replaceChildren();
    const press = this.#explains ? (name) => this.explain(name) : null;
    drawBars(this.find(".bars"), this.prediction, press, this.view === "heat" ? this.heatClass : null);
  }

  #renderViews() {
    const [, height, width] = this.model?.image_shape ?? [];
    const views = this.size && this.model ? ["image", "pixels"] : [];
    if (this.#explains) views.push("heat");
    const set = this.find(".views");
    set.hidden = views.length < 2;
    set.ariaLabel = text("views");
    set.replaceChildren(...views.map((view) => {
      const label = document.createElement("label"), input = document.createElement("input"), name = document.createElement("span");
      Object.assign(input, { type: "radio", name: `view-${this.number}`, value: view, checked: view === this.view });
      name.textContent = text(`view_${view}`, { width, height });
      if (view !== "image") label.title = text(`view_${view}_title`);
      label.append(input, name);
      return label;
    }));
    if (this.view === "heat" && !this.#explains) this.view = "image";
    const heat = this.view === "heat" && this.heats.has(this.heatClass);
    this.find(".heat").hidden = !heat;
    this.find(".pixels").hidden = this.view !== "pixels";
    this.find(".image").hidden = heat || this.view === "pixels" || !this.size;
  }

  #renderRelabel() {
    const button = this.find(".wrong");
    button.hidden = !this.model?.relabel || this.state !== "predicted" || this.stale;
    button.textContent = button.title = this.reported ? text("relabelled", { name: this.reported }) : text("wrong");
    const form = this.find(".relabel");
    if (button.hidden) form.hidden = true;
    button.ariaExpanded = String(!form.hidden);
    form.querySelector(".ask").textContent = text("relabel_ask");
    form.querySelector(".why").textContent = text("relabel_why");
    form.querySelector("[type=submit]").textContent = text("relabel_save");
    form.querySelector("[type=reset]").textContent = text("cancel");
    this.search.render();
  }

  /** Shows a view: "image", "pixels" or "heat". */
  look(view) {
    if (view === "heat") return this.explain(this.heatClass ?? this.prediction.top[0].class);
    this.view = view;
    this.refresh();
  }

  /** Shows the heat map of a class. */
  async explain(name) {
    Object.assign(this, { view: "heat", heatClass: name });
    const image = this.find(".heat");
    image.alt = text("heat_alt", { name });
    this.refresh();
    this.find(".view").ariaBusy = "true";
    try {
      if (!this.heats.has(name)) this.heats.set(name, URL.createObjectURL(await gradcam(this.file, this.name, name)));
      if (this.heatClass === name) image.src = this.heats.get(name);
      this.refresh();
    } catch (error) {
      this.view = "image";
      this.show({ sentence: await this.on.reason(error) });
    }
    this.find(".view").ariaBusy = "false";
  }

  /** Renders again; radio buttons and bars are rebuilt, and the one that had the focus gets it back. */
  refresh() {
    const had = document.activeElement, radio = had.closest?.(".views"), label = had.closest?.(".bars")?.contains(had) && had.textContent;
    this.render();
    if (radio === this.find(".views")) this.find(".views :checked")?.focus();
    else if (label) [...this.element.querySelectorAll(".bars button")].find((button) => button.textContent === label)?.focus();
    if (had !== document.body && document.activeElement === document.body) this.element.focus();
  }

  /** Shows the next view. */
  turn() {
    const views = [...this.element.querySelectorAll(".views input")].map((input) => input.value);
    if (views.length) this.look(views[(views.indexOf(this.view) + 1) % views.length]);
  }

  #listen() {
    this.find(".remove").addEventListener("click", () => this.on.remove(this));
    this.find(".retry").addEventListener("click", () => this.on.retry([this]));
    this.find(".views").addEventListener("change", (event) => this.look(event.target.value));
    this.find(".wrong").addEventListener("click", () => this.#openRelabel(this.find(".relabel").hidden));
    const form = this.find(".relabel");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#report();
    });
    form.addEventListener("reset", () => this.#openRelabel(false));
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#openRelabel(false);
    });
  }

  #openRelabel(open) {
    if (open && !globalThis.crypto?.subtle) return this.show({ sentence: text("no_digest") });
    this.find(".relabel").hidden = !open;
    this.find(".wrong").ariaExpanded = String(open);
    if (open) this.search.start(this.on.model().classes);
    else this.find(".wrong").focus();
  }

  async #report() {
    const name = this.find(".class").value, note = this.find(".note").value;
    try {
      await relabel({ file: this.name, digest: await digest(this.file), class: name, note });
      this.reported = name;
      this.show({});
      this.#openRelabel(false);
    } catch (error) {
      this.show({ sentence: await this.on.reason(error) });
    }
  }

  /** Takes the card off the page, or brings it back before another element. */
  hide() {
    this.removed = true;
    this.element.remove();
  }

  restore(list, before) {
    this.removed = false;
    this.render();
    list.insertBefore(this.element, before);
  }

  /** Frees its heat maps. */
  free() {
    for (const address of this.heats.values()) URL.revokeObjectURL(address);
    this.heats.clear();
  }

  /** Copies its image and pixels to other canvases. */
  copyTo(image, pixels) {
    copy(this.find(".image"), image);
    copy(this.find(".pixels"), pixels);
  }

  /** Why it is too large to be sent, or "". limits: {bytes, pixels} */
  tooLarge({ bytes, pixels }) {
    const mega = (value) => number(value / 1e6, 1);
    if (this.file.size > bytes) return text("too_heavy", { megabytes: mega(this.file.size), limit: mega(bytes) });
    const size = this.size ? this.size.width * this.size.height : 0;
    const values = { megapixels: mega(size), limit: mega(pixels), myriads: String(Math.ceil(size / 1e4)), most: String(Math.floor(pixels / 1e4)) };
    return size > pixels ? text("too_many_pixels", values) : "";
  }
}
