// Client of the server's API: the only file that sends requests.

import { text } from "./language.js";

const KEY = "token";
// Kept until the tab is closed, and not visible to other tabs or later visitors.
let token = sessionToken();
let askForToken = async () => null;
let pendingToken = null;

function sessionToken() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/** An error from the server or the network. `again`: whether a retry may succeed. */
export class RequestError extends Error {
  constructor(status, sentence, { seconds = 0, results = null } = {}) {
    super(sentence);
    Object.assign(this, { status, seconds, results });
    this.again = status === 0 || status === 401 || status === 408 || status === 429 || status >= 500;
  }
}

/** Sets the function that asks the user for a token: given "was the last one wrong", it returns a token, or null. */
export function onToken(asker) {
  askForToken = asker;
}

async function send(path, options) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  try {
    return await fetch(path, { ...options, headers, cache: "no-store" });
  } catch {
    throw new RequestError(0, text("lost"));
  }
}

async function request(path, options = {}) {
  for (;;) {
    const used = token;
    const response = await send(path, options);
    if (response.ok) return response;
    if (response.status !== 401) throw await requestError(response);
    // Requests that fail together ask once; one that failed with an older token retries with the newer.
    if (token === used) await newToken(Boolean(used));
  }
}

async function newToken(wrong) {
  pendingToken ??= askForToken(wrong).finally(() => (pendingToken = null));
  const given = await pendingToken;
  if (given === null) throw new RequestError(401, text("token_missing"));
  token = given;
  try {
    sessionStorage.setItem(KEY, token);
  } catch {
    // Without storage it lasts until the page is closed.
  }
}

async function requestError(response) {
  const seconds = Number(response.headers.get("Retry-After")) || 0;
  try {
    const { error, results } = await response.json();
    return new RequestError(response.status, error ?? text("unclear", { status: response.status }), { seconds, results });
  } catch {
    return new RequestError(response.status, text("unclear", { status: response.status }), { seconds });
  }
}

function form(parts) {
  const body = new FormData();
  for (const [name, value, file] of parts) body.append(name, value, ...(file ? [file] : []));
  return { method: "POST", body };
}

/** GET /model: class names, threshold, limits. */
export const model = async () => (await request("model")).json();

/** POST /predict: [[File, name]...] to its response. */
export const predict = async (images) => (await request("predict", form(images.map(([file, name]) => ["files", file, name])))).json();

/** POST /gradcam: a heat map of a class, as a Blob. */
export const gradcam = async (file, name, className) => (await request("gradcam", form([["file", file, name], ["class", className]]))).blob();

/** POST /relabel: reports a wrong prediction. */
export async function relabel(report) {
  await request("relabel", { method: "POST", body: JSON.stringify(report), headers: { "Content-Type": "application/json" } });
}
