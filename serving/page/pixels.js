// Pixels of an image: a preview that takes little memory, and the part of it that the network sees.

const PREVIEW = 640;

/** Decodes an image once and draws it twice. Returns its size in pixels, or null if the browser cannot decode it. */
export async function drawBoth(file, preview, small, model) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return null;
  }
  const size = { width: bitmap.width, height: bitmap.height };
  const scale = Math.min(1, PREVIEW / Math.max(size.width, size.height));
  draw(bitmap, preview, Math.max(1, Math.round(size.width * scale)), Math.max(1, Math.round(size.height * scale)));
  if (model) drawForNetwork(bitmap, small, model);
  bitmap.close();
  return size;
}

// The server does the same with Pillow's filter; the browser's differs slightly.
function drawForNetwork(bitmap, canvas, { image_shape: [, height, width], cover, fill }) {
  if (fill) {
    const scale = Math.min(height / bitmap.height, width / bitmap.width);
    const wide = Math.max(1, Math.round(bitmap.width * scale)), high = Math.max(1, Math.round(bitmap.height * scale));
    const place = [Math.floor((width - wide) / 2), Math.floor((height - high) / 2), wide, high];
    return draw(bitmap, canvas, width, height, place, `rgb(${fill})`);
  }
  if (cover === null) return draw(bitmap, canvas, width, height);
  const scale = Math.max(cover[0] / bitmap.height, cover[1] / bitmap.width);
  const wide = Math.round(bitmap.width * scale), high = Math.round(bitmap.height * scale);
  draw(bitmap, canvas, width, height, [-Math.floor((wide - width) / 2), -Math.floor((high - height) / 2), wide, high]);
}

function draw(bitmap, canvas, width, height, place = [0, 0, width, height], borders = "#fff") {
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.fillStyle = borders;
  context.fillRect(0, 0, width, height);
  context.fillStyle = "#fff"; // transparency over white, as the server does
  context.fillRect(...place);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, ...place);
}

/** Copies one canvas onto another. */
export function copy(from, to) {
  Object.assign(to, { width: from.width, height: from.height });
  to.getContext("2d").drawImage(from, 0, 0);
}

/** SHA-256 of a file in hexadecimal, or null where the browser offers none (plain http, not localhost). */
export async function digest(file) {
  if (!globalThis.crypto?.subtle) return null;
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
