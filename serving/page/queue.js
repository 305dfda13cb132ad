// Sends images in groups that the server's limits allow, a few groups at once, and hands each card its answer.

import { text } from "./language.js";
import { predict, Refusal } from "./server.js";

const GROUP = 8, AT_ONCE = 2;
// What a part of a multipart body costs besides the file.
const PART_BYTES = 1000;

export class Queue {
  /** limits: {bytes, files} of a request; told(milliseconds): called after each group. */
  constructor(limits, told) {
    this.limits = limits;
    this.told = told;
    this.waiting = [];
    this.running = 0;
  }

  /** Takes cards; those to be sent `alone` share no request with others. */
  add(cards, alone = false) {
    for (const card of cards) this.waiting.push({ card, alone });
    this.#pump();
  }

  #pump() {
    while (this.running < AT_ONCE && this.waiting.length) {
      const group = this.#next();
      if (!group.length) continue;
      this.running += 1;
      this.#send(group).finally(() => {
        this.running -= 1;
        this.#pump();
      });
    }
  }

  #next() {
    const group = [];
    let bytes = 0;
    while (this.waiting.length && group.length < Math.min(GROUP, this.limits.files)) {
      const { card, alone } = this.waiting[0];
      const size = card.file.size + PART_BYTES;
      if (group.length && (alone || bytes + size > this.limits.bytes)) break;
      this.waiting.shift();
      if (card.removed) continue;
      group.push(card);
      bytes += size;
      if (alone) break;
    }
    return group;
  }

  async #send(group) {
    for (const card of group) card.show({ state: "sending" });
    try {
      const reply = await predict(group.map((card) => [card.file, card.name]));
      hand(group, reply.results);
      this.told(reply.milliseconds);
    } catch (error) {
      this.#refused(group, error instanceof Refusal ? error : new Refusal(0, text("unclear", { status: String(error) })));
      this.told(null);
    }
  }

  #refused(group, refusal) {
    if (refusal.results?.length) return hand(group, refusal.results);
    // One image of a group may be to blame: each gets its own answer.
    if (group.length > 1 && !refusal.again) return this.add(group, true);
    for (const card of group) card.show({ state: "failed", sentence: refusal.message, again: refusal.again });
  }
}

// Results stand in the order of the images.
function hand(group, results) {
  group.forEach((card, place) => {
    const result = results[place];
    if (result?.top) card.show({ state: "answered", answer: result });
    else card.show({ state: "failed", sentence: result?.error ?? text("unanswered"), again: !result?.error });
  });
}
