// The room of painting: a mask over frames; what is painted is sampled anew.
import { ask, form, make, note, Panel, post, tried } from "./base.js";
import { Clock } from "./clock.js";
import { dropped } from "./files.js";

const at = (id) => document.getElementById(id);
let source = null; // { upload } or { take }
let strip = null, image = null, mask = null, brush = null, clock, panel;

export function start() {
  clock = new Clock(at("paint-clock"), "the pair");
  panel = new Panel(at("paint-progress"), "paint", (job, over) => {
    if (over && job.state === "done") result(job.takes[0]);
  });
  dropped(at("paint-drop"), at("paint-file"), async (upload) =>
    use({ upload: upload.id }, await ask(`/api/uploads/${upload.id}/strip`)));
  at("paint-take").onchange = tried(async () => {
    const take = at("paint-take").value;
    if (take) await use({ take }, await ask(`/takes/${take}/strip`));
  });
  at("paint-frame").oninput = draw;
  at("paint-clear").onclick = () => {
    mask.fill(0);
    draw();
  };
  at("paint-frame-all").onclick = () => {
    const size = strip.width * strip.height, first = frame() * size;
    mask.fill(at("paint-erase").checked ? 0 : 1, first, first + size);
    draw();
  };
  const canvas = at("paint-canvas");
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    brush = [((event.clientX - box.left) / box.width) * strip.width, ((event.clientY - box.top) / box.height) * strip.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    place(event);
    dab();
  });
  canvas.addEventListener("pointermove", (event) => {
    place(event);
    if (event.buttons) dab();
    else draw();
  });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (move) brush = [0, 1].map((axis) => Math.max(0, Math.min([strip.width, strip.height][axis] - 1, brush[axis] + 2 * move[axis])));
    if (event.key === " ") dab();
    if (move || event.key === " ") event.preventDefault();
    draw();
  });
  at("paint-form").addEventListener("submit", tried(async (event) => {
    event.preventDefault();
    if (!mask.includes(1)) return note("Nothing is painted: paint over what is to be sampled.");
    panel.start(await post("/api/paint", { ...form(at("paint-form")), ...source, mask: bits() }));
  }));
}

export const opened = tried(async () => {
  const takes = (await ask("/api/takes")).filter((take) => take.facts.prompt !== undefined);
  const name = (take) => `${take.facts.prompt || "(no text)"}, seed ${take.facts.seed}, take ${take.facts.row + 1}`;
  at("paint-take").replaceChildren(make("option", { value: "" }, "choose"),
    ...takes.map((take) => make("option", { value: take.id }, name(take))));
});

const frame = () => Number(at("paint-frame").value);

function use(given, told) {
  return new Promise((done, fail) => {
    image = new Image();
    image.onerror = () => fail(new Error("the frames cannot be shown"));
    image.onload = () => {
      [source, strip] = [given, told];
      mask = new Uint8Array(strip.frames * strip.width * strip.height);
      brush = [strip.width / 2, strip.height / 2];
      Object.assign(at("paint-canvas"), { width: strip.width, height: strip.height });
      Object.assign(at("paint-frame"), { max: strip.frames - 1, value: 0 });
      at("painter").hidden = false;
      draw();
      done();
    };
    image.src = told.url;
  });
}

function dab() {
  const radius = Number(at("paint-size").value), value = at("paint-erase").checked ? 0 : 1;
  const frames = at("paint-all").checked ? [...Array(strip.frames).keys()] : [frame()];
  const [x, y] = brush;
  for (let row = 0; row < strip.height; row++) {
    for (let column = 0; column < strip.width; column++) {
      if ((column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 > radius ** 2) continue;
      for (const one of frames) mask[(one * strip.height + row) * strip.width + column] = value;
    }
  }
  draw();
}

function draw() {
  const context = at("paint-canvas").getContext("2d"), first = frame();
  at("paint-number").textContent = `${first + 1} of ${strip.frames}`;
  context.drawImage(image, -first * strip.width, 0);
  context.fillStyle = "rgb(255 60 200 / 60%)";
  for (let place = 0; place < strip.width * strip.height; place++) {
    if (mask[first * strip.width * strip.height + place]) {
      context.fillRect(place % strip.width, Math.floor(place / strip.width), 1, 1);
    }
  }
  context.strokeStyle = "#fff";
  context.lineWidth = 0.5;
  context.beginPath();
  context.arc(brush[0], brush[1], Number(at("paint-size").value), 0, 7);
  context.stroke();
}

// Bits in the order of frames, rows, columns; the first is the highest of its byte.
function bits() {
  const bytes = new Uint8Array(Math.ceil(mask.length / 8));
  mask.forEach((value, place) => (bytes[place >> 3] |= value << (7 - (place & 7))));
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

function result(take) {
  const film = (name, words) => make("figure", {},
    make("video", { src: `/takes/${take.id}/${name}`, muted: true }), make("figcaption", {}, words));
  at("painted").replaceChildren(film("original.mp4", "before"), film("film.mp4", "after"));
  at("painted").hidden = false;
  clock.use([...at("painted").querySelectorAll("video")], take.fps);
}
