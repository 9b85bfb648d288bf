// The room of runs: curves, samples over steps and config differences of any number, live.
import { ask, make, tried } from "./base.js";
import { chart } from "./charts.js";

const at = (id) => document.getElementById(id);
let names = null, shown = "";

export function start() {
  at("run-filter").oninput = tried(refresh);
  setInterval(() => {
    if (!at("room-runs").hidden && document.visibilityState === "visible") tried(refresh)();
  }, 5000);
}

export function set(info) {
  document.getElementById("tab-runs").hidden = !info.runs;
}

export const opened = tried(async () => {
  if (document.getElementById("tab-runs").hidden) return;
  names = await ask("/api/runs");
  const before = new Set([...at("runs").querySelectorAll(":checked")].map((box) => box.value));
  at("runs").replaceChildren(make("legend", {}, names.length ? "Runs" : "no run is there yet"),
    ...names.map((name, place) => make("label", { className: "check" },
      make("input", { type: "checkbox", value: name, checked: before.size ? before.has(name) : place < 2, onchange: tried(refresh) }),
      make("i", { className: `key k${place % 6}` }), name)));
  await refresh();
});

async function refresh() {
  if (!names) return;
  const chosen = [...at("runs").querySelectorAll(":checked")].map((box) => box.value);
  const query = new URLSearchParams(chosen.map((name) => ["run", name]));
  query.append("filter", at("run-filter").value);
  const told = chosen.length ? await ask(`/api/runs/compared?${query}`) : { curves: {}, samples: {}, differences: [] };
  const text = JSON.stringify(told);
  if (text === shown) return;
  shown = text;
  at("curves").replaceChildren(...Object.entries(told.curves).map(([metric, of]) => {
    const found = Object.entries(of);
    return chart(metric, found.map(([, points]) => points.map(([step]) => step)),
      found.map(([name, points]) => [`c${names.indexOf(name) % 6}`, points.map(([, value]) => value)]), [], { zero: false });
  }));
  at("run-samples").replaceChildren(...Object.entries(told.samples).flatMap(([name, files]) => files.map((file) =>
    make("figure", {}, make("img", { src: `/runs/${encodeURIComponent(name)}/${encodeURIComponent(file)}`, loading: "lazy", alt: `${name}: ${file}` }),
      make("figcaption", {}, `${name}: ${file}`)))));
  at("run-differences").replaceChildren(
    make("tr", {}, make("th", {}, "field"), ...chosen.map((name) => make("th", {}, name))),
    ...told.differences.map(([field, ...values]) => make("tr", {}, make("th", { scope: "row" }, field),
      ...values.map((value) => make("td", {}, value)))));
}
