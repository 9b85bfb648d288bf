// What all rooms of the studio share: requests, elements, and jobs that are followed.

export async function ask(path, options = {}) {
  const given = { ...options, headers: { "x-studio": "1", ...(options.headers || {}) } };
  const answer = await fetch(path, given);
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error || `the studio answers ${answer.status}`);
  return told;
}

export const post = (path, form = {}) =>
  ask(path, { method: "POST", body: JSON.stringify(form), headers: { "content-type": "application/json" } });

// Texts become text nodes: whatever they hold, they are no markup.
export function make(tag, fields = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(fields)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== "list") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function note(text) {
  const line = make("p", {}, text);
  document.getElementById("notes").append(line);
  setTimeout(() => line.remove(), 9000);
}

export const tried = (work) => async (...given) => {
  try {
    return await work(...given);
  } catch (error) {
    note(error.message);
  }
};

export function form(element) {
  const found = {};
  for (const field of element.elements) {
    if (!field.name) continue;
    if (field.type === "checkbox") found[field.name] = field.checked;
    else if (field.type === "number") found[field.name] = field.value === "" ? null : Number(field.value);
    else found[field.name] = field.value;
  }
  return found;
}

// A job that this tab waits for, by the name of its room; a reload finds it again.
const remembered = (room) => sessionStorage.getItem(`job-${room}`);

export function follow(room, id, seen) {
  sessionStorage.setItem(`job-${room}`, id);
  const events = new EventSource(`/api/jobs/${id}/events`);
  events.onmessage = (event) => {
    const last = JSON.parse(event.data);
    const over = ["done", "cancelled", "failed"].includes(last.state);
    if (over) events.close();
    if (over) sessionStorage.removeItem(`job-${room}`);
    seen(last);
  };
  events.onerror = async () => {
    if (events.readyState !== EventSource.CLOSED) return; // it asks again by itself
    // A page that is left ends here: what it waits for is remembered.
    const answer = await fetch(`/api/jobs/${id}`).catch(() => null);
    if (answer?.status !== 404) return void setTimeout(() => follow(room, id, seen), 1000);
    sessionStorage.removeItem(`job-${room}`);
    seen({ id, state: "failed", error: "the studio has no such job any more" });
  };
}

export function resume(room, seen) {
  const id = remembered(room);
  if (id) follow(room, id, seen);
}

// "waiting, 2 before you", "step 3 of 12" and so on, in place of the last.
export function told(job) {
  if (job.state === "waiting") return job.place ? `waiting: ${job.place} before you` : "waiting: next";
  if (job.state === "cancelled") return "cancelled";
  if (job.state === "failed") return job.error;
  if (job.state === "done") return "done";
  const parts = [];
  if (job.of_takes > 1) parts.push(`take ${job.take} of ${job.of_takes}`);
  if (job.windows) parts.push(`window ${job.window} of ${job.windows}`);
  if (job.steps) parts.push(`step ${job.step} of ${job.steps}`);
  return parts.join(", ") || "starting";
}

export function fraction(job) {
  const step = job.steps ? job.step / job.steps : 0;
  if (job.windows) return (job.window - 1 + step) / job.windows;
  return job.of_takes ? (job.take - 1 + step) / job.of_takes : step;
}

// The panel of a job: its place or step, tokens and frames so far, and a button that cancels it.
export class Panel {
  constructor(element, room, done) {
    Object.assign(this, { element, room, done, timer: null });
    resume(room, (job) => this.show(job));
  }
  start(job) {
    this.element.replaceChildren();
    this.parts = null;
    follow(this.room, job.id, (later) => this.show(later));
  }
  show(job) {
    if (!this.parts) this.build(job);
    const { line, bar, tokens, frames, stop } = this.parts;
    line.textContent = told(job);
    bar.value = job.state === "done" ? 1 : fraction(job);
    if (job.tokens) drawTokens(tokens, job.tokens, job.grid);
    if (job.preview && job.preview.url !== this.url) {
      this.url = job.preview.url;
      this.play(frames, job.preview);
    }
    const over = ["done", "cancelled", "failed"].includes(job.state);
    if (over) {
      clearInterval(this.timer);
      stop.remove();
      if (job.state === "done") this.element.replaceChildren();
      this.parts = job.state === "done" ? null : this.parts;
    }
    this.done(job, over);
    if (over) this.parts = null;
  }
  build(job) {
    const line = make("p", { className: "state" });
    const bar = make("progress", { max: 1, value: 0, ariaLabel: "Progress" });
    const tokens = make("canvas", { width: 1, height: 1, role: "img", ariaLabel: "Tokens so far" });
    const frames = make("canvas", { width: 1, height: 1, role: "img", ariaLabel: "Frames so far" });
    const stop = make("button", {
      type: "button", className: "cancel",
      onclick: tried(() => post(`/api/jobs/${job.id}/cancel`)),
    }, "Cancel");
    this.parts = { line, bar, tokens, frames, stop };
    this.element.replaceChildren(line, bar, make("div", { className: "so-far" },
      make("figure", {}, frames, make("figcaption", {}, "frames so far")),
      make("figure", {}, tokens, make("figcaption", {}, "tokens; gray ones are masked"))), stop);
  }
  play(canvas, strip) {
    clearInterval(this.timer);
    const image = new Image();
    image.onload = () => {
      let frame = 0;
      canvas.width = strip.width;
      canvas.height = strip.height;
      canvas.style.width = `${Math.max(128, strip.width)}px`;
      const draw = () => {
        canvas.getContext("2d").drawImage(image, -strip.width * (frame++ % strip.frames), 0);
      };
      draw();
      this.timer = setInterval(draw, 125);
    };
    image.src = strip.url;
  }
}

// Latents in a row, each a grid of its tokens; a colour per code, gray for [MASK].
export function drawTokens(canvas, tokens, [latents, rows, columns], size = 8) {
  const gap = 4;
  canvas.width = latents * (columns * size + gap) - gap;
  canvas.height = rows * size;
  canvas.style.width = `${Math.min(canvas.width * 1.5, 480)}px`;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  tokens.forEach((token, place) => {
    const latent = Math.floor(place / (rows * columns));
    const [row, column] = [Math.floor(place / columns) % rows, place % columns];
    const shade = 35 + ((token * 53) % 40);
    context.fillStyle = token < 0 ? "rgb(128 128 128 / 45%)" : `hsl(${(token * 137.5) % 360} 60% ${shade}%)`;
    context.fillRect(latent * (columns * size + gap) + column * size, row * size, size - 1, size - 1);
  });
}
