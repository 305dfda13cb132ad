// Upload queue: sends images in batches within the server's limits and gives each card its prediction.

import { text } from "./language.js";
import { predict, RequestError } from "./server.js";

const BATCH = 8, CONCURRENT = 2;
// Overhead of a multipart body per file.
const PART_BYTES = 1000;

export class Queue {
  /**
   * limits: {bytes, files} per request; onResponse({digest, milliseconds}): awaited before a batch gets its results;
   * reason(error): the sentence for its cards.
   */
  constructor(limits, onResponse, reason) {
    Object.assign(this, { limits, onResponse, reason, waiting: [], running: 0 });
  }

  /** Queues cards; those to be sent `alone` share no request with others. */
  add(cards, alone = false) {
    const known = new Set(this.waiting.map(({ card }) => card));
    for (const card of cards) if (!known.has(card)) this.waiting.push({ card, alone });
    this.#pump();
  }

  #pump() {
    while (this.running < CONCURRENT && this.waiting.length) {
      const batch = this.#next();
      if (!batch.length) continue;
      this.running += 1;
      this.#send(batch).finally(() => {
        this.running -= 1;
        this.#pump();
      });
    }
  }

  #next() {
    const batch = [];
    let bytes = 0;
    while (this.waiting.length && batch.length < Math.min(BATCH, this.limits.files)) {
      const { card, alone } = this.waiting[0];
      const size = card.file.size + PART_BYTES;
      if (batch.length && (alone || bytes + size > this.limits.bytes)) break;
      this.waiting.shift();
      if (card.removed) {
        card.state = "waiting";
        continue;
      }
      batch.push(card);
      bytes += size;
      if (alone) break;
    }
    return batch;
  }

  async #send(batch) {
    for (const card of batch) card.show({ state: "sending" });
    try {
      const response = await predict(batch.map((card) => [card.file, card.name]));
      await this.onResponse(response);
      deliver(batch, response.results, response.digest);
    } catch (error) {
      await this.#fail(batch, error instanceof RequestError ? error : new RequestError(0, text("unclear", { status: String(error) })));
    }
  }

  async #fail(batch, error) {
    if (error.results?.length) return deliver(batch, error.results);
    // One image of a batch may be the cause: send each alone.
    if (batch.length > 1 && !error.again) return this.add(batch, true);
    const sentence = await this.reason(error);
    for (const card of batch) card.show({ state: "failed", sentence, again: error.again });
  }
}

// Results are in the order of the images.
function deliver(batch, results, digest = null) {
  batch.forEach((card, index) => {
    const result = results[index];
    if (result?.top) card.show({ state: "predicted", prediction: result, digest });
    else card.show({ state: "failed", sentence: result?.error ?? text("no_result"), again: !result?.error });
  });
}
