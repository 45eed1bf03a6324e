// The canvas of the tabs Draw and Paint. From the server, `props.value` is {setup: "drawing" | "labels", height, width, ...};
// to the server it is {image} of a drawing, or {height, width, labels, instances?} of a label map, in base64 of 16-bit numbers: places in the palette.
const root = element.querySelector(".canvas-root");
const USE = "With the keyboard: arrow keys move the pen, Space paints, Enter fills, Ctrl+Z undoes.";
const STEPS = 30; // that can be undone
let sent = null;

function make(tag, options, parent) {
  const made = Object.assign(document.createElement(tag), options);
  if (parent) parent.append(made);
  return made;
}

function labelled(text, input, parent) {
  const label = make("label", { textContent: text }, parent);
  label.append(input);
  return input;
}

function toBase64(numbers) {
  const bytes = new Uint8Array(numbers.buffer);
  let text = "";
  for (let start = 0; start < bytes.length; start += 32768)
    text += String.fromCharCode.apply(null, bytes.subarray(start, start + 32768));
  return btoa(text);
}

function fromBase64(text) {
  return new Uint16Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

function colourOf(hex) {
  return [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));
}

// What is on the canvas is an array of numbers: places in the palette, or colours as the canvas keeps them.
function build(setup) {
  const { width, height } = setup, drawing = setup.setup === "drawing", size = width * height;
  root.replaceChildren();
  const tools = make("div", { className: "row" }, root);
  const canvas = make("canvas", { width, height, tabIndex: 0 }, root);
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", drawing ? "Canvas to draw on" : "Canvas to paint a label map on");
  const hint = make("div", { className: "hint", textContent: USE, role: "status" }, root);
  const view = canvas.getContext("2d", { willReadFrequently: true });
  const picture = view.createImageData(width, height), shown = new Uint32Array(picture.data.buffer);
  const packed = (hex) => { const c = colourOf(hex); return (255 << 24 | c[2] << 16 | c[1] << 8 | c[0]) >>> 0; };

  let values, instances = null, table = [], chosen, instance = 0;
  if (drawing) {
    values = shown.fill(0xffffffff);
    chosen = packed("#000000");
  } else {
    values = fromBase64(setup.labels);
    if (setup.instances) { instances = fromBase64(setup.instances); instance = 1 + instances.reduce((a, b) => Math.max(a, b), 0); }
    table = setup.palette.map((entry) => packed(entry.colour));
    chosen = 0;
  }
  let tool = "brush", undone = [], done = [], last = null, cursor = [width >> 1, height >> 1], pointed = false;

  function show() {
    if (!drawing) for (let k = 0; k < size; k++) shown[k] = table[values[k]];
    if (instances) // a darker line between instances
      for (let k = 0; k < size; k++)
        if (((k + 1) % width && instances[k] !== instances[k + 1]) || (k + width < size && instances[k] !== instances[k + width]))
          shown[k] = ((shown[k] >> 1) & 0x7f7f7f | 0xff000000) >>> 0;
    view.putImageData(picture, 0, 0);
    if (document.activeElement === canvas && !pointed) {
      const r = Math.max(3, brush.value / 2);
      view.strokeStyle = "#d55e00"; view.lineWidth = Math.max(1, width / 256);
      view.beginPath(); view.arc(cursor[0] + 0.5, cursor[1] + 0.5, r, 0, 7); view.stroke();
    }
  }
  const copy = () => [values.slice(), instances && instances.slice()];
  function restore([v, i]) { values.set(v); if (i) instances.set(i); show(); send(); }
  function remember() { done.push(copy()); if (done.length > STEPS) done.shift(); undone = []; }
  function put(k) { values[k] = chosen; if (instances) instances[k] = instance; }

  // A disc of pixels at each step of the way: no pixel is blended with another, so that each has a colour that was chosen.
  function stroke(from, to) {
    const radius = brush.value / 2, reach = Math.ceil(radius), steps = Math.max(1, Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1])));
    for (let step = 0; step <= steps; step++) {
      const x = from[0] + (to[0] - from[0]) * step / steps, y = from[1] + (to[1] - from[1]) * step / steps;
      for (let v = Math.floor(y) - reach; v <= Math.floor(y) + reach; v++)
        for (let u = Math.floor(x) - reach; u <= Math.floor(x) + reach; u++)
          if (u >= 0 && v >= 0 && u < width && v < height && (Math.hypot(u + 0.5 - x, v + 0.5 - y) <= radius || (u === Math.floor(x) && v === Math.floor(y))))
            put(v * width + u);
    }
    show();
  }
  function fill(x, y) {
    const start = Math.floor(y) * width + Math.floor(x), old = values[start], seen = new Uint8Array(size), stack = [start];
    while (stack.length) {
      const k = stack.pop();
      if (seen[k] || values[k] !== old) continue;
      seen[k] = 1;
      if (k % width) stack.push(k - 1);
      if ((k + 1) % width) stack.push(k + 1);
      if (k >= width) stack.push(k - width);
      if (k < size - width) stack.push(k + width);
    }
    for (let k = 0; k < size; k++) if (seen[k]) put(k);
    show();
  }
  function send() {
    if (drawing) {
      view.putImageData(picture, 0, 0);
      sent = JSON.stringify({ image: canvas.toDataURL("image/png") });
    } else {
      const maps = { height, width, labels: toBase64(values) };
      if (instances) maps.instances = toBase64(instances);
      sent = JSON.stringify(maps);
    }
    props.value = sent;
    setTimeout(() => trigger("input"), 0);
  }

  const button = (text, press, parent = tools) => {
    const made = make("button", { type: "button", textContent: text }, parent);
    made.addEventListener("click", press);
    return made;
  };
  const kinds = {};
  const choose = (name) => { tool = name; for (const key in kinds) kinds[key].setAttribute("aria-pressed", key === name); };
  kinds.brush = button("Brush", () => choose("brush"));
  kinds.fill = button("Fill", () => choose("fill"));
  choose("brush");
  const brush = labelled("Width", make("input", { type: "range", min: 1, max: Math.max(8, width >> 2), value: drawing ? Math.max(1, Math.round(width / 128)) : Math.max(2, width >> 4) }), tools);
  let swatches = [];
  const choosePaint = (value) => { chosen = value; for (const [each, paint] of swatches) each.setAttribute("aria-pressed", paint === value); };
  if (drawing) {
    const colour = labelled("Colour", make("input", { type: "color", value: "#000000" }), tools);
    colour.addEventListener("input", () => choosePaint(packed(colour.value)));
    swatches = [["Black", "#000000"], ["White (eraser)", "#ffffff"]].map(([name, hex]) => [button(name, () => choosePaint(packed(hex))), packed(hex)]);
    const file = make("input", { type: "file", accept: "image/*", hidden: true }, tools);
    button("Draw over an image", () => file.click());
    file.addEventListener("change", async () => {
      if (!file.files.length) return;
      try {
        const image = await createImageBitmap(file.files[0]);
        remember();
        view.fillStyle = "#fff"; view.fillRect(0, 0, width, height);
        const scale = Math.min(width / image.width, height / image.height), w = image.width * scale, h = image.height * scale;
        view.drawImage(image, (width - w) / 2, (height - h) / 2, w, h);
        picture.data.set(view.getImageData(0, 0, width, height).data);
        show(); send();
        hint.textContent = USE;
      } catch { hint.textContent = file.files[0].name + " can't be shown by this browser; use a PNG, JPEG or WebP file."; }
      file.value = "";
    });
  } else {
    const palette = make("div", { className: "row palette" });
    palette.setAttribute("role", "group"); palette.setAttribute("aria-label", "Classes");
    root.insertBefore(palette, canvas);
    swatches = setup.palette.map((entry, place) => {
      const made = button("", () => choosePaint(place), palette);
      make("span", { className: "swatch", style: "background:" + entry.colour }, made);
      made.append(entry.name);
      return [made, place];
    });
    if (instances) {
      const number = make("output", { textContent: "Instance " + instance });
      button("New instance", () => { instance += 1; number.textContent = "Instance " + instance; });
      tools.append(number);
    }
  }
  choosePaint(chosen);
  button("Undo", () => { if (done.length) { undone.push(copy()); restore(done.pop()); } });
  button("Redo", () => { if (undone.length) { done.push(copy()); restore(undone.pop()); } });
  button("Clear", () => { remember(); if (drawing) values.fill(0xffffffff); else { for (let k = 0; k < size; k++) put(k); } show(); send(); });

  const place = (event) => {
    const box = canvas.getBoundingClientRect(), edge = canvas.clientLeft;
    return [(event.clientX - box.left - edge) * width / canvas.clientWidth, (event.clientY - box.top - edge) * height / canvas.clientHeight];
  };
  const inside = ([x, y]) => x >= 0 && y >= 0 && x < width && y < height;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pointed = true;
    const at = place(event);
    if (!inside(at)) return;
    canvas.setPointerCapture(event.pointerId);
    remember();
    if (tool === "fill") { fill(...at); send(); } else { last = at; stroke(at, at); }
  });
  canvas.addEventListener("pointermove", (event) => { if (last) { const at = place(event); stroke(last, at); last = at; } });
  for (const end of ["pointerup", "pointercancel"])
    canvas.addEventListener(end, () => { if (last) { last = null; send(); } });
  canvas.addEventListener("focus", show);
  canvas.addEventListener("blur", show);
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    pointed = false;
    if (way) {
      const far = event.shiftKey ? 1 : Math.max(1, brush.value / 2 | 0);
      cursor = [0, 1].map((k) => Math.min([width, height][k] - 1, Math.max(0, cursor[k] + way[k] * far)));
      show();
    } else if (event.key === " ") { remember(); stroke(cursor.map((c) => c + 0.5), cursor.map((c) => c + 0.5)); send(); show(); }
    else if (event.key === "Enter") { remember(); fill(...cursor); send(); show(); }
    else if (event.key === "z" && (event.ctrlKey || event.metaKey) && done.length) { undone.push(copy()); restore(done.pop()); }
    else return;
    event.preventDefault();
  });
  show();
}

function load() {
  if (!props.value || props.value === sent) return;
  let setup;
  try { setup = JSON.parse(props.value); } catch { return; }
  if (setup.setup) build(setup);
}
watch("value", load);
load();
