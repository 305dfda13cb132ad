// Keyboard focus of the cards: one tab stop for all of them; arrow keys go by their places in the grid.

let stop = null;

/** Makes Tab reach one card and its controls only: `element`, else the one that it reached before, else the first. */
export function keepStop(list, element = null) {
  const next = element ?? (stop?.isConnected ? stop : list.firstElementChild);
  if (stop && stop !== next) stop.card.stop = false;
  stop = next;
  if (stop) stop.card.stop = true;
}

/** The card that a key leads to from this one, or null. */
export function neighbour(element, key) {
  const all = [...element.parentElement.children], from = all.indexOf(element);
  const columns = all.filter((other) => other.offsetTop === all[0].offsetTop).length;
  const row = (index) => Math.floor(index / columns);
  const to = {
    ArrowLeft: from - 1,
    ArrowRight: from + 1,
    ArrowUp: from - columns,
    // Above the gap at the end of the last row, down leads to its last card.
    ArrowDown: row(from) < row(all.length - 1) ? Math.min(from + columns, all.length - 1) : -1,
    Home: 0,
    End: all.length - 1,
  }[key];
  return all[to] ?? null;
}

/** Keeps the tab stop at the card that has the focus. */
export function followFocus(list) {
  list.addEventListener("focusin", (event) => keepStop(list, event.target.closest(".card")));
}
