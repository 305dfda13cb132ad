// "What am I looking at?": the way of one image, and what the numbers of this model mean.

import { drawBars } from "./card.js";
import { number, percent, text } from "./language.js";

const byId = (id) => document.getElementById(id);

const kind = (temperature) => (temperature === 1 ? "none" : temperature > 1 ? "sure" : "unsure");

/** Writes the lessons for a model, with its own numbers. */
export function lessons(model) {
  const [channels, height, width] = model.image_shape;
  const told = [
    ["lesson_pixels", text(model.resize_short === null ? "lesson_pixels_stretch" : "lesson_pixels_crop", { width, height, numbers: channels * height * width })],
    ["lesson_share", text("lesson_share_text", { count: model.classes.length })],
    ["lesson_temperature", text(`lesson_temperature_${kind(model.temperature)}`, { temperature: number(model.temperature, 2) })],
    ["lesson_threshold", model.threshold == null ? text("lesson_threshold_none") : text("lesson_threshold_text", { threshold: percent(model.threshold) })],
    ["lesson_sure", text("lesson_sure_text")],
  ];
  if (model.gradcam) told.push(["lesson_heat", text("lesson_heat_text")]);
  byId("lessons").replaceChildren(...told.map(([head, content]) => {
    const lesson = document.createElement("section"), title = document.createElement("h3"), words = document.createElement("p");
    title.textContent = text(head);
    words.textContent = content;
    lesson.append(title, words);
    return lesson;
  }));
  byId("step-size").textContent = text("step_pixels", { width, height });
}

/** Shows the way of one card's image; null: of none. */
export function follow(card) {
  const known = Boolean(card?.size && card.answer && card.model);
  byId("steps").hidden = !known;
  if (!known) return;
  card.copyTo(byId("step-image"), byId("step-pixels"));
  drawBars(byId("step-bars"), card.answer);
}
