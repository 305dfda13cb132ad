// Draws MAP.points [x, y, class, suspect, path, thumbnail] on the canvas; a pointer shows the nearest image.
const canvas = document.getElementById("canvas"), hover = document.getElementById("hover");
const lighter = matchMedia("screen and (prefers-color-scheme: dark)").matches ? 17 : 0;
const colour = (label) => `hsl(${(label * 137.5 + 210) % 360} 65% ${(label % 3 === 2 ? 35 : 48) + lighter}%)`;
let only = -1;

function place([x, y]) {
  const margin = 14;
  return [margin + x * (canvas.clientWidth - 2 * margin), margin + (1 - y) * (canvas.clientHeight - 2 * margin)];
}

function draw() {
  const ratio = devicePixelRatio || 1, pen = canvas.getContext("2d");
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  pen.scale(ratio, ratio);
  const radius = MAP.points.length > 3000 ? 2 : 4;
  for (const faded of [true, false]) {
    for (const point of MAP.points) {
      if ((only >= 0 && point[2] !== only) !== faded) continue;
      const [x, y] = place(point);
      pen.globalAlpha = faded ? 0.08 : 0.8;
      pen.fillStyle = colour(point[2]);
      pen.beginPath();
      pen.arc(x, y, radius, 0, 7);
      pen.fill();
      if (!point[3]) continue;
      pen.strokeStyle = getComputedStyle(canvas).getPropertyValue("--bad");
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(x, y, radius + 4, 0, 7);
      pen.stroke();
    }
  }
}

function show(event) {
  const box = canvas.getBoundingClientRect(), at = [event.clientX - box.left, event.clientY - box.top];
  let best = null, nearest = 20 ** 2;
  for (const point of MAP.points) {
    if (only >= 0 && point[2] !== only) continue;
    const [x, y] = place(point), distance = (x - at[0]) ** 2 + (y - at[1]) ** 2;
    if (distance < nearest) [best, nearest] = [point, distance];
  }
  hover.style.display = best ? "block" : "none";
  if (!best) return;
  const image = hover.querySelector("img"), [x, y] = place(best);
  image.hidden = !best[5];
  if (best[5]) image.src = best[5];
  hover.querySelector("figcaption").textContent = `${MAP.classes[best[2]]}${best[3] ? SUSPECTED : ""}; ${best[4]}`;
  hover.style.left = `${Math.min(x + 10, canvas.clientWidth - hover.offsetWidth - 4)}px`;
  hover.style.top = `${Math.min(y + 10, canvas.clientHeight - hover.offsetHeight - 4)}px`;
}

MAP.classes.forEach((name, label) => {
  const item = document.createElement("li"), button = document.createElement("button"), dot = document.createElement("i");
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  dot.style.background = colour(label);
  button.append(dot, name);
  button.addEventListener("click", () => {
    only = only === label ? -1 : label;
    document.querySelectorAll("#legend button").forEach((other, index) => other.setAttribute("aria-pressed", String(index === only)));
    draw();
  });
  item.append(button);
  document.getElementById("legend").append(item);
});
canvas.addEventListener("pointermove", show);
canvas.addEventListener("pointerdown", show);
canvas.addEventListener("pointerleave", () => { hover.style.display = "none"; });
addEventListener("resize", draw);
draw();
