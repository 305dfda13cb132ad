// The camera: a viewfinder in the page where the browser allows one, else the device's camera app.

import { text } from "./language.js";

const finder = document.getElementById("finder"), video = document.getElementById("video");
const shoot = document.getElementById("shoot"), why = document.getElementById("finder-why");
const system = document.getElementById("system-camera"), capture = document.getElementById("capture");
const button = document.getElementById("camera");
const WHY = { NotAllowedError: "camera_denied", SecurityError: "camera_denied", NotFoundError: "camera_missing" };
let stream = null, failure = "";

// A phone's file field opens its camera app; elsewhere it opens a list of files.
const hasApp = () => matchMedia("(pointer: coarse)").matches;

/** Prepares the button and the dialog; take(files) receives the photo. */
export function prepare(take) {
  offer();
  navigator.mediaDevices?.addEventListener("devicechange", offer);
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

// The button is there where it leads to a camera: browsers list one, if there is any, before they have permission.
async function offer() {
  const devices = await navigator.mediaDevices?.enumerateDevices?.().catch(() => null);
  button.hidden = !hasApp() && !devices?.some(({ kind }) => kind === "videoinput");
}

/** Renders the dialog's texts in the current language. */
export function render() {
  system.textContent = text(hasApp() ? "system_camera" : "choose");
  why.textContent = failure ? text(failure) : "";
}

/** Opens the viewfinder. Browsers allow cameras on https and localhost only: elsewhere the device's camera app opens. */
export async function open() {
  if (!navigator.mediaDevices?.getUserMedia) return capture.click();
  shoot.disabled = true;
  shoot.hidden = false;
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
  } catch (error) {
    stop();
    video.hidden = shoot.hidden = true;
    failure = WHY[error.name] ?? "camera_failed";
    render();
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
