// Image input: dropped (folders too), pasted, chosen.

/** Calls take(files) for whatever is dropped anywhere on the page, pasted, or chosen in the two inputs. */
export function listen(take) {
  for (const input of document.querySelectorAll("#files, #capture")) {
    input.addEventListener("change", () => {
      take([...input.files]);
      input.value = ""; // so that the same file can be chosen again
    });
  }
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length && !event.target.closest?.("input")) {
      event.preventDefault();
      take(files, true);
    }
  });
  listenForDrops(take);
}

function listenForDrops(take) {
  let depth = 0; // dragenter and dragleave fire for every element on the way
  const mark = () => document.body.classList.toggle("dragging", depth > 0);
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => {
    depth += carriesFiles(event);
    mark();
  });
  document.addEventListener("dragleave", (event) => {
    depth = Math.max(0, depth - carriesFiles(event));
    mark();
  });
  document.addEventListener("dragover", (event) => {
    if (carriesFiles(event)) event.preventDefault();
  });
  document.addEventListener("drop", async (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    depth = 0;
    mark();
    take(await dropped(event.dataTransfer));
  });
}

async function dropped(transfer) {
  // Entries must be read before the first await: the browser empties the list then.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  return (await Promise.all(entries.map(filesOf))).flat();
}

async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader(), found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    found.push(...some);
  }
  // Hidden files of a folder (.DS_Store ...) are not images.
  return (await Promise.all(found.filter(({ name }) => !name.startsWith(".")).map(filesOf))).flat();
}
