// One image on the page: its views, its prediction, and the report of a wrong one.

import { number, percent, text } from "./language.js";
import { copy, digest, drawBoth } from "./pixels.js";
import { gradcam, relabel } from "./server.js";

const template = document.getElementById("card");
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

/** An image and its state. `on`: the callbacks changed, remove and retry of the page. */
export class Card {
  constructor(file, name, model, on) {
    Object.assign(this, { file, name, model, on, state: "waiting", prediction: null, sentence: "", again: false, removed: false });
    Object.assign(this, { size: null, view: "image", heatClass: null, heats: new Map(), reported: null });
    this.element = template.content.cloneNode(true).firstElementChild;
    this.element.card = this;
    this.number = cards++;
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
    Object.assign(this, { sentence: "", again: false }, change);
    if (this.removed) return;
    this.render();
    if (this.state === "predicted" || this.state === "failed") this.on.changed(this);
  }

  get headline() {
    if (this.state !== "predicted") return this.state === "failed" ? text("no_prediction") : text(this.state);
    return this.prediction.none_of_these ? text("none_of_these") : this.prediction.class;
  }

  get announcement() {
    if (this.sentence) return text("announced_error", { name: this.name, sentence: this.sentence });
    if (this.state !== "predicted") return `${this.name}: ${this.headline}`;
    return text("announced", { name: this.name, headline: this.headline, probability: percent(this.prediction.top[0].probability) });
  }

  /** Renders everything in the current language. */
  render() {
    this.element.dataset.state = this.state;
    this.element.ariaLabel = this.announcement;
    this.element.ariaBusy = String(this.state === "waiting" || this.state === "sending");
    this.find(".prediction b").textContent = this.headline;
    this.find(".prediction").classList.toggle("rejected", Boolean(this.prediction?.none_of_these));
    const accepted = this.state === "predicted" && !this.prediction.none_of_these;
    this.find(".prediction span").textContent = accepted ? percent(this.prediction.top[0].probability) : "";
    const sentence = this.find(".sentence");
    sentence.textContent = this.sentence;
    sentence.hidden = !this.sentence;
    Object.assign(this.find(".retry"), { textContent: text("retry"), hidden: !this.again });
    Object.assign(this.find(".remove"), { ariaLabel: text("remove", { name: this.name }), title: text("remove", { name: this.name }) });
    Object.assign(this.find(".name"), { textContent: this.name, title: this.name });
    this.find(".blank").textContent = text("unshown");
    this.#renderBars();
    this.#renderViews();
    this.#renderRelabel();
  }

  #renderBars() {
    if (this.state !== "predicted") return this.find(".bars").replaceChildren();
    const press = this.model?.gradcam ? (name) => this.explain(name) : null;
    drawBars(this.find(".bars"), this.prediction, press, this.view === "heat" ? this.heatClass : null);
  }

  #renderViews() {
    const [, height, width] = this.model?.image_shape ?? [];
    const views = this.size && this.model ? ["image", "pixels"] : [];
    if (this.model?.gradcam && this.state === "predicted") views.push("heat");
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
    const heat = this.view === "heat" && this.heats.has(this.heatClass);
    this.find(".heat").hidden = !heat;
    this.find(".pixels").hidden = this.view !== "pixels";
    this.find(".image").hidden = heat || this.view === "pixels" || !this.size;
  }

  #renderRelabel() {
    const button = this.find(".wrong");
    button.hidden = !this.model?.relabel || this.state !== "predicted";
    button.textContent = this.reported ? text("relabelled", { name: this.reported }) : text("wrong");
    const form = this.find(".relabel"), select = this.find("select");
    form.querySelector(".ask").textContent = text("relabel_ask");
    form.querySelector(".why").textContent = text("relabel_why");
    form.querySelector("[type=submit]").textContent = text("relabel_save");
    form.querySelector("[type=reset]").textContent = text("cancel");
    if (select.options.length) select.options[0].textContent = text("relabel_choose");
  }

  /** Shows a view: "image", "pixels" or "heat". */
  look(view) {
    if (view === "heat") return this.explain(this.heatClass ?? this.prediction.top[0].class);
    this.view = view;
    this.#refresh();
  }

  /** Shows the heat map of a class. */
  async explain(name) {
    Object.assign(this, { view: "heat", heatClass: name });
    const image = this.find(".heat");
    image.alt = text("heat_alt", { name });
    this.#refresh();
    this.find(".view").ariaBusy = "true";
    try {
      if (!this.heats.has(name)) this.heats.set(name, URL.createObjectURL(await gradcam(this.file, this.name, name)));
      if (this.heatClass === name) image.src = this.heats.get(name);
      this.#refresh();
    } catch (error) {
      this.view = "image";
      this.show({ sentence: error.message });
    }
    this.find(".view").ariaBusy = "false";
  }

  // Radio buttons and bars are rebuilt: the one that had the focus gets it back.
  #refresh() {
    const had = document.activeElement, radio = had.closest?.(".views"), label = had.closest?.(".bars")?.contains(had) && had.textContent;
    this.render();
    if (radio === this.find(".views")) this.find(".views :checked")?.focus();
    else if (label) [...this.element.querySelectorAll(".bars button")].find((button) => button.textContent === label)?.focus();
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
    const select = this.find("select");
    if (open && !globalThis.crypto?.subtle) return this.show({ sentence: text("no_digest") });
    if (open && !select.options.length) {
      select.append(new Option(text("relabel_choose"), ""), ...this.model.classes.map((name) => new Option(name, name)));
    }
    this.find(".relabel").hidden = !open;
    this.find(".wrong").ariaExpanded = String(open);
    (open ? select : this.find(".wrong")).focus();
  }

  async #report() {
    const name = this.find("select").value, note = this.find(".relabel input").value;
    try {
      await relabel({ file: this.name, digest: await digest(this.file), class: name, note });
      this.reported = name;
      this.show({});
      this.#openRelabel(false);
    } catch (error) {
      this.show({ sentence: error.message });
    }
  }

  /** Removes the card and frees its object URLs. */
  drop() {
    this.removed = true;
    for (const address of this.heats.values()) URL.revokeObjectURL(address);
    this.element.remove();
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
    return size > pixels ? text("too_many_pixels", { megapixels: mega(size), limit: mega(pixels) }) : "";
  }
}
