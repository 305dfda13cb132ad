// One item: its image or its pair, the question, and what is known.

import { load, show, WHOLE } from "./images.js";
import { percent, text } from "./language.js";
import { bars, decision, facts, fileName, question } from "./words.js";

const byId = (id) => document.getElementById(id);

function element(tag, content = "", attributes = {}) {
  return Object.assign(document.createElement(tag), { textContent: content, ...attributes });
}

/** Shows an item. `chosen`: the image of a pair that is decided on; `choose(number)` chooses another. */
export function render(item, store, chosen, choose) {
  const pair = item.images.length > 1;
  byId("shots").classList.toggle("pair", pair);
  byId("shots").replaceChildren(...item.images.map((path, number) => shot(path, number, store, pair, chosen === number, choose)));
  byId("question").textContent = question(item, store);
  byId("facts").replaceChildren(...facts(item, store).flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  byId("bars").replaceChildren(...bars(item, store).map(([name, className, value]) => {
    const row = element("li"), track = element("span", "", { className: "track" }), bar = document.createElement("i");
    bar.style.width = `${100 * value}%`;
    track.append(bar);
    row.append(element("span", name, { className: "what" }), element("b", className), track, element("span", percent(value), { className: "share" }));
    return row;
  }));
}

function shot(path, number, store, pair, isChosen, choose) {
  const figure = element("figure", "", { className: "shot" }), image = store.images[path];
  const frame = pair ? element("button", "", { type: "button", className: "frame" }) : element("div", "", { className: "frame" });
  if (pair) {
    frame.ariaPressed = `${isChosen}`;
    frame.ariaLabel = `${text("choose_this", { number: number + 1 })}: ${text("alt", { file: fileName(path), label: image.label })}`;
    frame.addEventListener("click", () => choose(number));
  }
  figure.append(frame);
  if (pair) {
    const caption = element("figcaption");
    const split = image.reason ? text(image.reason) ?? image.reason : image.split;
    caption.append(element("kbd", `${number + 1}`), element("b", image.label), element("span", `${split} · ${path}`), element("span", decision(store, path), { className: "mark" }));
    figure.append(caption);
  }
  fill(frame, path, text("alt", { file: fileName(path), label: image.label }), pair);
  return figure;
}

async function fill(frame, path, alt, decorative) {
  frame.append(element("span", text("loading"), { className: "blank" }));
  try {
    const { digest, url, error } = await load(path, WHOLE);
    if (!frame.isConnected) return;
    if (error) frame.replaceChildren(element("span", text("broken", { detail: error }), { className: "blank" }));
    else {
      const image = element("img", "", { alt: decorative ? "" : alt, src: url });
      await image.decode();
      if (!frame.isConnected) return;
      frame.replaceChildren(image);
      // A small image is enlarged with its pixels in sight.
      image.classList.toggle("pixels", Math.max(image.naturalWidth, image.naturalHeight) <= 96);
    }
    show(path, digest);
    frame.dataset.shown = "yes";
  } catch (error) {
    frame.replaceChildren(element("span", error.message, { className: "blank" }));
  }
}

/** Loads the images of an item before it is shown. */
export function prefetch(item) {
  for (const path of item?.images ?? []) load(path, WHOLE).catch(() => {});
}
