// The server's interface: the only file that sends anything.

import { text } from "./language.js";

const KEY = "token";
// Kept until the tab is closed, and never where another tab or a later visitor finds it.
let token = sessionToken();
let askForToken = async () => null;
let asking = null;

function sessionToken() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/** What the server, or the way to it, said no with. `again`: whether the same request may succeed later. */
export class Refusal extends Error {
  constructor(status, sentence, { seconds = 0, results = null } = {}) {
    super(sentence);
    Object.assign(this, { status, seconds, results });
    this.again = status === 0 || status === 401 || status === 408 || status === 429 || status >= 500;
  }
}

/** Says who asks the reader for a token: a function of "was there a wrong one" that gives a token, or null. */
export function onToken(asker) {
  askForToken = asker;
}

async function send(path, options) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  try {
    return await fetch(path, { ...options, headers, cache: "no-store" });
  } catch {
    throw new Refusal(0, text("unreachable"));
  }
}

async function ask(path, options = {}) {
  for (;;) {
    const used = token;
    const response = await send(path, options);
    if (response.ok) return response;
    if (response.status !== 401) throw await refusal(response);
    // Requests that failed together ask once; one that failed with an older token just tries the newer.
    if (token === used) await newToken(Boolean(used));
  }
}

async function newToken(wrong) {
  asking ??= askForToken(wrong).finally(() => (asking = null));
  const given = await asking;
  if (given === null) throw new Refusal(401, text("token_missing"));
  token = given;
  try {
    sessionStorage.setItem(KEY, token);
  } catch {
    // Without storage it lasts until the page is left.
  }
}

async function refusal(response) {
  const seconds = Number(response.headers.get("Retry-After")) || 0;
  try {
    const { error, results } = await response.json();
    return new Refusal(response.status, error ?? text("unclear", { status: response.status }), { seconds, results });
  } catch {
    return new Refusal(response.status, text("unclear", { status: response.status }), { seconds });
  }
}

function form(parts) {
  const body = new FormData();
  for (const [name, value, file] of parts) body.append(name, value, ...(file ? [file] : []));
  return { method: "POST", body };
}

/** Asks what runs here: names of the classes, threshold, limits and what else GET /model tells. */
export const model = async () => (await ask("model")).json();

/** Asks what images show: [[File, name]...] to the reply of POST /predict. */
export const predict = async (images) => (await ask("predict", form(images.map(([file, name]) => ["files", file, name])))).json();

/** Asks for a heat map, as a Blob: what in the image speaks for a class. */
export const gradcam = async (file, name, className) => (await ask("gradcam", form([["file", file, name], ["class", className]]))).blob();

/** Notes down what an image really shows. */
export async function relabel(entry) {
  await ask("relabel", { method: "POST", body: JSON.stringify(entry), headers: { "Content-Type": "application/json" } });
}
