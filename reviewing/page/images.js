// Images as they were shown: each with the digest of the file that it was made from. The last ones are kept.

import { image } from "./server.js";

export const THUMBNAIL = 240, WHOLE = 1280;
// Images that are kept as objects of the browser, by side.
const KEPT = { [THUMBNAIL]: 400, [WHOLE]: 8 };
// Requests at a time, so that the one on the screen does not wait behind those that were scrolled past.
const AT_A_TIME = 4;
const loaded = { [THUMBNAIL]: new Map(), [WHOLE]: new Map() };
// Path -> digest of the file that the person has seen last.
const seen = new Map();
const waiting = [];
let running = 0;

/** Loads an image: {digest, url} or {digest, error}. `wanted`: whether it is still needed when its turn comes. */
export function load(path, side, wanted = () => true) {
  const kept = loaded[side];
  const found = kept.get(path);
  if (found) {
    kept.delete(path);
    kept.set(path, found);
    return found;
  }
  const promise = turn(wanted).then(async () => {
    try {
      const { digest, blob, error } = await image(path, side);
      return { digest, error, url: blob && URL.createObjectURL(blob) };
    } finally {
      running--;
      next();
    }
  });
  kept.set(path, promise);
  promise.catch(() => kept.get(path) === promise && kept.delete(path));
  for (const oldest of kept.keys()) {
    if (kept.size <= KEPT[side]) break;
    drop(oldest, side);
  }
  return promise;
}

function turn(wanted) {
  return new Promise((resolve, reject) => {
    waiting.push({ wanted, resolve, reject });
    next();
  });
}

function next() {
  while (running < AT_A_TIME && waiting.length) {
    // The one asked for last is on the screen.
    const { wanted, resolve, reject } = waiting.pop();
    if (wanted()) {
      running++;
      resolve();
    } else {
      reject(Object.assign(new Error("scrolled past"), { unwanted: true }));
    }
  }
}

function drop(path, side) {
  const promise = loaded[side].get(path);
  loaded[side].delete(path);
  promise?.then(({ url }) => url && URL.revokeObjectURL(url), () => {});
}

/** Notes that the person sees an image. */
export function show(path, digest) {
  seen.set(path, digest);
}

/** Digest of the file that was shown last; undefined: the image was not shown. */
export const shownDigest = (path) => seen.get(path);

/** Forgets an image whose file has changed, so that it is loaded and shown again. */
export function forget(path) {
  seen.delete(path);
  for (const side of [THUMBNAIL, WHOLE]) drop(path, side);
}
