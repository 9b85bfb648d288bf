// The room of stories: scenes as cards, the film window by window, re-rolls, branches, undo.
import { ask, form, make, Panel, post, tried } from "./base.js";
import { chart } from "./charts.js";
import { Clock } from "./clock.js";
import { upload } from "./files.js";

const at = (id) => document.getElementById(id);
let now = null; // the story that is open, as the studio tells it
let panel, clock;

const empty = () => ({ seed: "0", scenes: [{ prompt: "", seconds: 1.4 }] });

export function start() {
  clock = new Clock(at("film-clock"), "the film");
  panel = new Panel(at("story-progress"), "story", (job, over) => {
    at("story-notes").replaceChildren(...(job.notes || []).map((line) => make("li", {}, line)));
    if (job.drift && job.story === now?.id) drift(job.drift);
    if (over && job.state === "done") open(job.story, job.preview ? undefined : true);
  });
  at("story-form").addEventListener("submit", tried(async (event) => {
    event.preventDefault();
    panel.start(await act("render"));
  }));
  at("story-preview").onclick = tried(async () => panel.start(await act("preview")));
  at("story-undo").onclick = tried(async () => show(await act("undo")));
  at("story-branch").onclick = tried(async () => {
    show(await act("branch"));
    await list();
  });
  at("story-new").onclick = tried(async () => show({ id: null, name: "", form: empty(), files: {}, drift: {} }));
  at("story-remove").onclick = tried(async () => {
    if (!now?.id || !confirm("Remove this story and its film?")) return;
    await ask(`/api/stories/${now.id}`, { method: "DELETE" });
    sessionStorage.removeItem("story");
    await first();
  });
  at("scene-add").onclick = () => {
    at("scenes").append(cardOf({ prompt: "", seconds: 1.5 }));
    number();
    at("scenes").lastElementChild.querySelector("textarea").focus();
  };
  at("stories").onchange = tried(() => open(at("stories").value));
  at("film-video").addEventListener("timeupdate", caption);
  tried(first)();
}

export function set(info) {
  at("story-form").guidance.placeholder = info.defaults.guidance;
  at("story-form").steps.placeholder = info.defaults.steps;
}

async function first() {
  const all = await list();
  const last = sessionStorage.getItem("story");
  if (all.some((story) => story.id === last)) await open(last);
  else if (all.length) await open(all[0].id);
  else show({ id: null, name: "", form: empty(), files: {}, drift: {} });
}

async function list() {
  const all = await ask("/api/stories");
  at("stories").replaceChildren(...all.map((story) => make("option", { value: story.id }, story.name)));
  if (!all.length) at("stories").append(make("option", { value: "" }, "none yet"));
  if (now?.id) at("stories").value = now.id;
  return all;
}

async function open(id) {
  if (id) show(await ask(`/api/stories/${id}`));
}

// Saves the cards, then does what the story can do; a story without an id is made first.
async function act(what, more = {}) {
  const fields = read();
  if (!now?.id) {
    now = await post("/api/stories", fields);
    remember();
    await list();
  }
  return post(`/api/stories/${now.id}/${what}`, { form: fields, ...more });
}

function remember() {
  sessionStorage.setItem("story", now.id || "");
  at("stories").value = now.id || "";
}

function read() {
  const { name, seed, guidance, steps } = form(at("story-form"));
  const scenes = [...document.querySelectorAll(".scene")].map((card) => ({
    prompt: card.querySelector(".prompt").value,
    seconds: Number(card.querySelector(".seconds").value),
    seed: card.querySelector(".seed").value,
    cut: card.querySelector(".cut").checked,
    image: card.dataset.image || null,
    ...JSON.parse(card.dataset.rest || "{}"),
  }));
  return { name, seed, guidance, steps, scenes };
}

function show(story) {
  now = story;
  remember();
  const fields = at("story-form");
  fields.elements.name.value = story.form.name || "";
  fields.seed.value = story.form.seed || "0";
  fields.guidance.value = story.form.guidance ?? "";
  fields.steps.value = story.form.steps ?? "";
  at("scenes").replaceChildren(...story.form.scenes.map(cardOf));
  number();
  at("story-undo").disabled = !story.can_undo;
  at("story-branch").disabled = at("story-remove").disabled = !story.id;
  const time = story.files["story.mp4"];
  at("film").hidden = !time && !story.preview;
  drift(story.drift.windows || []);
  right(story.right || {});
  if (at("film").hidden) return;
  const film = time ? "story.mp4" : "preview.mp4";
  at("film-name").textContent = time ? "Film" : "Preview";
  at("film-video").src = `/stories/${story.id}/${film}?${time || Date.now()}`;
  clock.use([at("film-video")], 8);
  const names = ["story.mp4", "story.gif", "story.srt", "story.yaml", "drift.json", "story.png"];
  const links = names.filter((name) => name === "story.yaml" || story.files[name]).map((name) =>
    make("a", { href: `/stories/${story.id}/${name}?download`, className: "small" }, name));
  at("film-files").replaceChildren("Download: ", ...links);
}

function number() {
  [...document.querySelectorAll(".scene")].forEach((card, place, all) => {
    card.querySelector("h3").textContent = `Scene ${place + 1}`;
    card.querySelector(".up").disabled = place === 0;
    card.querySelector(".down").disabled = place === all.length - 1;
    card.querySelector(".remove").disabled = all.length === 1;
  });
}

function cardOf(scene) {
  const { prompt, seconds, seed, cut, image, ...rest } = scene;
  const card = make("li", { className: "scene" });
  const button = (name, label, work) =>
    make("button", { type: "button", className: `small ${name}`, onclick: work }, label);
  const place = () => [...card.parentElement.children].indexOf(card) + 1;
  const file = make("input", { type: "file", accept: "image/*,video/*", className: "image", ariaLabel: "First image",
    onchange: tried(async () => {
      if (!file.files.length) return;
      card.dataset.image = (await upload(file.files[0])).id;
      card.querySelector(".cut").checked = true;
      card.querySelector(".has").textContent = `starts from ${file.files[0].name}`;
    }) });
  card.dataset.rest = JSON.stringify(rest);
  if (image) card.dataset.image = image;
  card.append(
    make("h3", {}, "Scene"),
    make("label", {}, "What happens", make("textarea", { className: "prompt", rows: 2, maxLength: 2000, value: prompt || "" })),
    make("div", { className: "row" },
      make("label", {}, "Seconds", make("input", { className: "seconds", type: "number", min: 0.1, max: 600, step: "any", value: seconds, required: true })),
      make("label", {}, "Seed", make("input", { className: "seed", inputMode: "numeric", value: seed || "", placeholder: "the story's" }))),
    make("label", { className: "check" }, make("input", { className: "cut", type: "checkbox", checked: Boolean(cut) }), "Hard cut before it"),
    make("details", {}, make("summary", {}, "First image"), file,
      make("p", { className: "hint has" }, image ? "starts from an image" : ""),
      button("clear", "No image", () => {
        delete card.dataset.image;
        file.value = "";
        card.querySelector(".has").textContent = "";
      })),
    make("div", { className: "buttons" },
      button("reroll", "Re-roll", tried(async () => panel.start(await act("reroll", { scene: place() })))),
      button("up", "Earlier", () => {
        card.previousElementSibling.before(card);
        number();
      }),
      button("down", "Later", () => {
        card.nextElementSibling.after(card);
        number();
      }),
      button("remove", "Remove", () => {
        card.remove();
        number();
      })));
  return card;
}

// The prompt of the scene that is shown.
function caption() {
  const windows = now?.drift?.windows || [];
  const seconds = at("film-video").currentTime;
  const last = windows.filter((line) => line.start <= seconds + 1e-3).pop();
  const cards = [...document.querySelectorAll(".scene")];
  cards.forEach((card, place) => card.classList.toggle("now", last?.scene === place + 1));
  at("film-scene").textContent = cards[last?.scene - 1]?.querySelector(".prompt").value || "";
}

// How many windows show what their prompts ask for, where the model's films can be read.
function right(found) {
  const parts = Object.entries(found).map(([name, x]) => `${name} ${(100 * x).toFixed(0)} %`);
  at("film-right").textContent = parts.length ? `Windows that a detector finds right: ${parts.join(", ")}` : "";
}

function drift(lines) {
  const box = at("drift");
  box.hidden = lines.length < 2;
  for (const old of box.querySelectorAll("svg")) old.remove();
  if (box.hidden) return;
  const times = lines.map((line) => line.start);
  const rules = lines.filter((line, place) => place && line.scene !== lines[place - 1].scene).map((line) => line.start);
  const of = (name, channel) => lines.map((line) => (channel === undefined ? line[name] : line[name][channel]));
  box.append(
    chart("colour, mean", times, [["red", of("mean", 0)], ["green", of("mean", 1)], ["blue", of("mean", 2)]], rules),
    chart("sharpness", times, [["ink", of("sharpness")]], rules),
    chart("change: across the seam (red), within the window", times, [["red", of("seam")], ["ink", of("step")]], rules));
}
