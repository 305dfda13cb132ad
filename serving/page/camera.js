// The camera: a viewfinder in the page where the browser allows one, else the device's camera app.

import { text } from "./language.js";

const finder = document.getElementById("finder"), video = document.getElementById("video");
const shoot = document.getElementById("shoot"), why = document.getElementById("finder-why");
const system = document.getElementById("system-camera"), capture = document.getElementById("capture");
let stream = null;

/** Prepares the dialog; take(files) receives the photo. */
export function prepare(take) {
  shoot.addEventListener("click", async () => {
    const file = await still();
    finder.close();
    take([file]);
  });
  document.getElementById("finder-close").addEventListener("click", () => finder.close());
  system.addEventListener("click", () => {
    capture.click();
    finder.close();
  });
  finder.addEventListener("close", stop);
}

/** Opens the viewfinder. Browsers allow cameras on https and localhost only: elsewhere the device's camera app opens. */
export async function open() {
  if (!navigator.mediaDevices?.getUserMedia) return capture.click();
  shoot.disabled = true;
  why.hidden = system.hidden = true;
  video.hidden = false;
  finder.showModal();
  try {
    const size = { width: { ideal: 1920 }, height: { ideal: 1080 } };
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", ...size } });
    if (!finder.open) return stop(); // closed while the browser asked for permission
    video.srcObject = stream;
    await video.play();
    shoot.disabled = false;
    shoot.focus();
  } catch {
    stop();
    video.hidden = true;
    why.textContent = text("no_camera");
    why.hidden = system.hidden = false;
    system.focus();
  }
}

function stop() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = video.srcObject = null;
}

async function still() {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
  const name = text("camera_name", { time: new Date().toTimeString().slice(0, 8).replaceAll(":", ".") });
  return new File([blob], name, { type: blob.type });
}
