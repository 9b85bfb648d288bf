// The room of reconstructions: the original next to what comes back, tokens and dB per frame.
import { drawTokens, make, Panel, post } from "./base.js";
import { chart } from "./charts.js";
import { Clock } from "./clock.js";
import { dropped } from "./files.js";

const at = (id) => document.getElementById(id);
let clock, panel, result = null;

export function start() {
  clock = new Clock(at("clip-clock"), "the clip");
  panel = new Panel(at("clip-progress"), "reconstruct", (job, over) => {
    if (over && job.state === "done") show(job);
  });
  dropped(at("clip-drop"), at("clip-file"), async (upload, name) =>
    panel.start(await post("/api/reconstruct", { upload: upload.id, name })));
  setInterval(follow, 100);
}

function show(job) {
  result = job;
  const [take] = job.takes;
  const film = (name, words) => {
    const video = make("video", { src: `/takes/${take.id}/${name}`, muted: true });
    return make("figure", {}, video, make("figcaption", {}, words));
  };
  at("clips").replaceChildren(film("original.mp4", "original"), film("film.mp4", "reconstruction"));
  at("clips").hidden = false;
  clock.use([...at("clips").querySelectorAll("video")], take.fps);
  const places = job.decibels.map((_, frame) => frame);
  at("decibels").replaceChildren(make("figcaption", {}, `PSNR ${take.facts.psnr.toFixed(1)} dB over all frames`));
  if (places.length > 1) at("decibels").append(chart("dB per frame", places, [["ink", job.decibels]]));
  at("clip-tokens").hidden = false;
}

function follow() {
  const video = at("clips").querySelector("video");
  if (!result || !video || at("room-reconstruct").hidden) return;
  const { takes: [take], decibels, tokens_of_frames: grids } = result;
  const frame = Math.min(decibels.length - 1, Math.floor(video.currentTime * take.fps + 1e-3));
  at("clip-number").textContent = `frame ${frame + 1} of ${decibels.length}: ${decibels[frame].toFixed(1)} dB`;
  const grid = grids[frame];
  if (grid) drawTokens(at("clip-tokens"), grid.flat(), [1, grid.length, grid[0].length], 24);
}
