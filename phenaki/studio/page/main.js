// Tabs of the studio, and what the model is.
import { ask, note } from "./base.js";
import { limit } from "./files.js";
import * as paint from "./paint.js";
import * as prompt from "./prompt.js";
import * as reconstruct from "./reconstruct.js";
import * as runs from "./runs.js";
import * as story from "./story.js";

const rooms = { prompt, story, paint, reconstruct, runs };
const tabs = [...document.querySelectorAll('[role="tab"]')];

function open(tab, focus = true) {
  for (const other of tabs) {
    const on = other === tab;
    other.setAttribute("aria-selected", on);
    other.tabIndex = on ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = !on;
  }
  if (focus) tab.focus();
  sessionStorage.setItem("room", tab.id);
  rooms[tab.id.replace("tab-", "")]?.opened?.();
}

tabs.forEach((tab) => {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const shown = tabs.filter((other) => !other.hidden);
    if (move) open(shown[(shown.indexOf(tab) + move + shown.length) % shown.length]);
  });
});

async function info() {
  const line = document.getElementById("model");
  try {
    const told = await ask("/api/info");
    if (told.failure) line.textContent = `the model cannot be loaded: ${told.failure}`;
    else if (!told.ready) return setTimeout(info, 500);
    else {
      const size = `${told.frames} frames of ${told.width}x${told.height} at ${told.fps} per second`;
      line.textContent = `${told.name.split("/").pop()}: ${size}`;
      line.dataset.ready = "true";
      limit(told.upload_mb);
      for (const room of Object.values(rooms)) room.set?.(told);
    }
  } catch (error) {
    note(error.message);
    setTimeout(info, 2000);
  }
}

for (const room of Object.values(rooms)) room.start();
open(document.getElementById(sessionStorage.getItem("room")) || tabs[0], false);
info();
