// "What am I looking at?": how one image is processed, and what the numbers of this model mean.

import { drawBars } from "./card.js";
import { number, percent, text } from "./language.js";

const byId = (id) => document.getElementById(id);

const kind = (temperature) => (temperature === 1 ? "none" : temperature > 1 ? "sure" : "unsure");

/** Renders the explanations for a model, with its own numbers. */
export function renderLessons(model) {
  const [channels, height, width] = model.image_shape;
  const resize = model.fill ? "pad" : model.cover === null ? "stretch" : "crop";
  const lessons = [
    ["lesson_pixels", text(`lesson_pixels_${resize}`, { width, height, numbers: channels * height * width })],
    ["lesson_share", text("lesson_share_text", { count: model.classes.length })],
    ["lesson_temperature", text(`lesson_temperature_${kind(model.temperature)}`, { temperature: number(model.temperature, 2) })],
    ["lesson_threshold", model.threshold == null ? text("lesson_threshold_none") : text("lesson_threshold_text", { threshold: percent(model.threshold) })],
    ["lesson_sure", text("lesson_sure_text")],
  ];
  if (model.gradcam) lessons.push(["lesson_heat", text("lesson_heat_text")]);
  byId("lessons").replaceChildren(...lessons.map(([head, content]) => {
    const lesson = document.createElement("section"), title = document.createElement("h3"), words = document.createElement("p");
    title.textContent = text(head);
    words.textContent = content;
    lesson.append(title, words);
    return lesson;
  }));
  byId("step-size").textContent = text("step_pixels", { width, height });
}

/** Shows the processing steps of one card's image; null hides them. */
export function follow(card) {
  const complete = Boolean(card?.size && card.prediction && card.model);
  byId("steps").hidden = !complete;
  if (!complete) return;
  card.copyTo(byId("step-image"), byId("step-pixels"));
  drawBars(byId("step-bars"), card.prediction);
}
