// What there is to decide and what has been decided, as the server last said.

export const DECIDED = "decided";

export class Store {
  constructor(content) {
    Object.assign(this, content);
    this.decisions = new Map(Object.entries(content.decisions));
    this.decided = [...this.decisions].sort(([, one], [, other]) => (one.when < other.when ? 1 : -1)).map(([path]) => decidedItem(path));
    this.queue = this.names().find((name) => name !== DECIDED && this.left(name)) ?? this.names()[0];
    this.place = {};
    this.skipped = new Set();
  }

  /** Items of a queue. Those decided are made from the decisions, the last one first. */
  itemsOf(queue) {
    if (queue !== DECIDED) return (this.byQueue ??= Map.groupBy(this.items, (item) => item.queue)).get(queue) ?? [];
    return this.decided;
  }

  /** Queues that have something. */
  names() {
    return [...this.queues, DECIDED].filter((name) => this.itemsOf(name).length);
  }

  /** Number of items of a queue that are left; of those decided, all. */
  left(queue) {
    return this.itemsOf(queue).filter((item) => !item.done).length;
  }

  /** Numbers over all queues but the decided. */
  total() {
    const done = this.items.filter((item) => item.done).length;
    return { done, all: this.items.length, left: this.items.length - done };
  }

  get index() {
    // Kept from the first look on: what is decided elsewhere meanwhile stays in sight.
    return (this.place[this.queue] ??= this.firstLeft(0) ?? this.itemsOf(this.queue).length);
  }

  set index(value) {
    this.place[this.queue] = Math.max(0, Math.min(value, this.itemsOf(this.queue).length));
  }

  /** The item that is shown; undefined at the end of a queue. */
  get item() {
    return this.itemsOf(this.queue)[this.index];
  }

  /** Index of the next item that is left and was not skipped: from here on, then from the start; undefined: none. */
  firstLeft(start) {
    const items = this.itemsOf(this.queue);
    for (let step = 0; step < items.length; step++) {
      const index = (start + step) % items.length, item = items[index];
      if (!item.done && !this.skipped.has(item)) return index;
    }
    return undefined;
  }

  /** Goes on to what is left. */
  advance() {
    const next = this.queue === DECIDED ? this.index + 1 : this.firstLeft(this.index + 1);
    this.index = next ?? this.itemsOf(this.queue).length;
  }

  /** Queue after this one that has something left. */
  nextQueue() {
    const names = this.names(), here = names.indexOf(this.queue);
    const others = [...names.slice(here + 1), ...names.slice(0, Math.max(here, 0))].filter((name) => name !== DECIDED);
    return others.find((name) => this.left(name));
  }

  /** Number of items of the queue that were skipped and are left. */
  get skippedHere() {
    return this.itemsOf(this.queue).filter((item) => this.skipped.has(item) && !item.done).length;
  }

  /** Takes what has changed on the server. */
  apply({ version, decisions = {}, done = {}, images = {} }) {
    if (version === undefined) return;
    this.version = version;
    Object.assign(this.images, images);
    for (const [path, decision] of Object.entries(decisions)) {
      if (decision) this.decisions.set(path, decision);
      else this.decisions.delete(path);
    }
    for (const [number, value] of Object.entries(done)) this.items[number].done = value;
    this.#renewDecided(decisions);
  }

  // What was decided anew comes first; what was decided again stays where it is.
  #renewDecided(decisions) {
    const known = new Set(this.decided.map(({ images: [path] }) => path));
    const added = Object.keys(decisions).filter((path) => decisions[path] && !known.has(path)).map(decidedItem);
    const gone = this.decided.filter(({ images: [path] }) => !this.decisions.has(path));
    if (!added.length && !gone.length) return;
    const shown = this.queue === DECIDED ? this.item : undefined;
    this.decided = [...added, ...this.decided.filter((item) => !gone.includes(item))];
    const index = this.decided.indexOf(shown);
    if (index >= 0) this.place[DECIDED] = index;
  }
}

function decidedItem(path) {
  return { queue: DECIDED, images: [path], suggested: [""], facts: {}, done: false };
}
