// Client of the server's API: the only file that sends requests.

import { text } from "./language.js";

/** An error that the page shows in words. `content`: what the server sent with it. */
export class RequestError extends Error {
  constructor(code, content = {}) {
    super(text(`error_${code}`, { count: content.paths?.length || 1, detail: content.detail ?? "" }) ?? text("error_unclear", { detail: code }));
    Object.assign(this, { code, content });
  }
}

async function request(path, options = {}) {
  try {
    return await fetch(path, { ...options, cache: "no-store" });
  } catch {
    throw new RequestError("unreachable");
  }
}

async function json(path, options) {
  const response = await request(path, options);
  const content = await response.json().catch(() => ({ error: "unclear", detail: `${response.status}` }));
  if (!response.ok) throw new RequestError(content.error, content);
  return content;
}

const post = (path, body) => json(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });

/** GET /review: everything. */
export const review = () => json("review");

/** GET /changes: what has changed after a version. */
export const changes = (version) => json(`changes?version=${version}`);

/** POST /decide: appends decisions, all or none; resolves to what has changed. */
export const decide = (body) => post("decide", body);

/** POST /undo: takes back what this page decided last. */
export const undo = (body) => post("undo", body);

/** GET /image: {digest, blob}, or {digest, error} if it cannot be decoded. */
export async function image(path, side) {
  const response = await request(`image?side=${side}&path=${encodeURIComponent(path)}`);
  const digest = response.headers.get("X-Digest") ?? "";
  if (response.ok) return { digest, blob: await response.blob() };
  const content = await response.json().catch(() => ({}));
  if (response.status === 422) return { digest, error: content.detail };
  throw new RequestError(content.error ?? "unclear", content);
}
