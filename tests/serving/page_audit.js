// What is wrong with the page for people who use a keyboard, a screen reader, or see little: a list of sentences.
() => {
  const wrong = [];
  const describe = (element) => element.outerHTML.slice(0, 90);
  const isShown = (element) => element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true }) && !element.closest(".unseen");
  const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  for (const id of new Set(ids.filter((id, index) => ids.indexOf(id) !== index))) wrong.push(`two elements have the id ${id}`);

  for (const control of document.querySelectorAll("button, input, select, textarea, article, dialog[open], [role=listbox]")) {
    if (!isShown(control) && control.type !== "radio") continue;
    const labels = [...(control.labels ?? [])].map((label) => label.textContent).join("");
    const name = control.ariaLabel || labels || (control.matches("button") && control.textContent) || control.querySelector("h2")?.textContent;
    if (!name?.trim()) wrong.push(`no name: ${describe(control)}`);
    for (const id of [control.getAttribute("aria-controls"), control.getAttribute("aria-activedescendant")]) {
      if (id && !document.getElementById(id)) wrong.push(`no element ${id}: ${describe(control)}`);
    }
    const box = control.getBoundingClientRect();
    if (control.matches("button:not(.label)") && (box.width < 24 || box.height < 24)) wrong.push(`smaller than 24 px: ${describe(control)}`);
  }
  for (const image of document.images) if (isShown(image) && !image.alt) wrong.push(`no alternative text: ${describe(image)}`);

  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  // Paints colours over each other; the relative luminance of what results, as WCAG defines it.
  const luminance = (colours) => {
    context.clearRect(0, 0, 1, 1);
    for (const colour of colours) {
      context.fillStyle = colour;
      context.fillRect(0, 0, 1, 1);
    }
    const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
    return 0.2126 * linear(red / 255) + 0.7152 * linear(green / 255) + 0.0722 * linear(blue / 255);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !isShown(element) || element.matches(":disabled, script, template, noscript")) continue;
    const behind = [];
    for (let at = element; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
    const style = getComputedStyle(element);
    const [light, dark] = [luminance(["white", ...behind]), luminance(["white", ...behind, style.color])].sort((a, b) => b - a);
    const large = parseFloat(style.fontSize) >= (style.fontWeight >= 700 ? 18.66 : 24);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < (large ? 3 : 4.5)) wrong.push(`contrast ${contrast.toFixed(2)}: ${describe(element)}`);
  }
  if (document.documentElement.scrollWidth > innerWidth) wrong.push(`${document.documentElement.scrollWidth} px in a window of ${innerWidth}`);
  return wrong;
}
