// The room of prompts: takes side by side on one clock, kept, compared, removed.
import { ask, form, make, Panel, post, tried } from "./base.js";
import { Clock } from "./clock.js";

const chosen = new Set();
let clock, pairClock, takes = [];

export function start() {
  const element = document.getElementById("prompt-form");
  clock = new Clock(document.getElementById("takes-clock"), "the takes");
  const panel = new Panel(document.getElementById("prompt-progress"), "prompt", (job, over) => {
    const lines = (job.notes || []).map((line) => make("li", {}, line));
    document.getElementById("prompt-notes").replaceChildren(...lines);
    if (job.takes && job.takes.length !== panel.count) {
      panel.count = job.takes.length;
      refresh();
    }
    if (over) refresh();
  });
  element.addEventListener("submit", tried(async (event) => {
    event.preventDefault();
    panel.count = 0;
    panel.start(await post("/api/prompt", form(element)));
  }));
  element.prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element.requestSubmit();
  });
  refresh();
}

export function set(info) {
  const element = document.getElementById("prompt-form");
  element.guidance.placeholder = info.defaults.guidance;
  element.steps.placeholder = info.defaults.steps;
  element.temperature.placeholder = "the model's";
  for (const name of ["critic", "student"]) element[name].parentElement.hidden = !info[name];
  if (!info.text) element.prompt.placeholder = "this model takes no text";
}

export const refresh = tried(async () => {
  takes = await ask("/api/takes");
  const there = new Map([...document.querySelectorAll("#takes .take")].map((card) => [card.dataset.id, card]));
  const cards = takes.map((take) => {
    const card = there.get(take.id) || cardOf(take);
    card.classList.toggle("kept", take.kept);
    const keep = card.querySelector(".keep");
    keep.setAttribute("aria-pressed", take.kept);
    keep.textContent = take.kept ? "Kept" : "Keep";
    return card;
  });
  document.getElementById("takes").replaceChildren(...cards);
  document.getElementById("no-takes").hidden = takes.length > 0;
  clock.use(cards.map((card) => card.querySelector("video")), takes[0]?.fps);
  for (const id of [...chosen]) if (!takes.some((take) => take.id === id)) chosen.delete(id);
  compare();
});

function cardOf(take) {
  const { facts } = take;
  const film = make("video", { src: `/takes/${take.id}/film.mp4`, muted: true, playsInline: true });
  film.setAttribute("aria-label", facts.prompt || "a film without text");
  const kept = () => takes.find((other) => other.id === take.id).kept;
  return make("article", { className: "take", "data-id": take.id },
    film,
    make("p", { className: "text" }, facts.prompt || facts.reconstruction || "(no text)"),
    make("p", { className: "facts" }, summary(facts)),
    make("div", { className: "buttons" },
      make("button", { type: "button", className: "small keep", onclick: tried(async () => {
        await post(`/api/takes/${take.id}`, { kept: !kept() });
        await refresh();
      }) }, "Keep"),
      make("button", { type: "button", className: "small choose", "aria-pressed": "false", onclick: (event) => {
        const on = !chosen.delete(take.id);
        if (on) chosen.add(take.id);
        if (chosen.size > 2) chosen.delete([...chosen][0]);
        compare();
      } }, "Compare"),
      make("a", { href: `/takes/${take.id}/film.mp4?download`, className: "small" }, "mp4"),
      make("button", { type: "button", className: "small remove", onclick: tried(async () => {
        if (kept() && !confirm("This take is kept. Remove it?")) return;
        await ask(`/api/takes/${take.id}`, { method: "DELETE" });
        await refresh();
      }) }, "Remove")));
}

function summary(facts) {
  if (facts.psnr !== undefined) return `${facts.psnr.toFixed(1)} dB`;
  const parts = [`seed ${facts.seed}`, `take ${facts.row + 1}`];
  if (facts.options) parts.push(`λ ${facts.options.guidance}`, `${facts.options.steps} steps`);
  return parts.join(" · ");
}

function flat(facts, before = "") {
  return Object.entries(facts).flatMap(([name, value]) =>
    value && typeof value === "object" && !Array.isArray(value)
      ? flat(value, `${before}${name}.`) : [[before + name, JSON.stringify(value)]]);
}

function compare() {
  for (const card of document.querySelectorAll("#takes .take")) {
    card.querySelector(".choose").setAttribute("aria-pressed", chosen.has(card.dataset.id));
  }
  const place = document.getElementById("compare");
  const pair = takes.filter((take) => chosen.has(take.id));
  place.hidden = pair.length !== 2;
  if (pair.length !== 2) return place.replaceChildren();
  const [one, other] = pair.map((take) => Object.fromEntries(flat(take.facts)));
  const names = [...new Set([...Object.keys(one), ...Object.keys(other)])];
  const rows = names.filter((name) => one[name] !== other[name]).map((name) =>
    make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, one[name] ?? "–"), make("td", {}, other[name] ?? "–")));
  const films = pair.map((take) => make("video", { src: `/takes/${take.id}/film.mp4`, muted: true }));
  const bar = make("div", { className: "clock" });
  place.replaceChildren(make("h2", {}, "Compare"), bar, make("div", { className: "pair" }, ...films),
    make("div", { className: "scroll" }, make("table", {}, make("caption", {}, "What differs"),
      make("tbody", {}, ...rows))));
  pairClock = new Clock(bar, "the pair");
  pairClock.use(films, pair[0].fps);
}
