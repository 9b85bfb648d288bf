// Several films on one clock: the first leads, the others follow to within half a frame.
import { make } from "./base.js";

export class Clock {
  constructor(element, name) {
    this.films = [];
    this.fps = 8;
    this.button = make("button", { type: "button", className: "play", onclick: () => this.toggle() }, "Pause");
    this.place = make("input", {
      type: "range", min: 0, max: 1, step: "any", value: 0, ariaLabel: `Place in ${name}`,
      oninput: () => this.seek(Number(this.place.value)),
    });
    this.time = make("output", {}, "0.0 s");
    const step = (count, label, sign) => make("button", {
      type: "button", ariaLabel: label, onclick: () => this.step(count),
    }, sign);
    element.replaceChildren(this.button, step(-1, "One frame back", "‹"), this.place,
      step(1, "One frame on", "›"), this.time);
    this.playing = true;
    element.hidden = true;
    this.element = element;
    setInterval(() => this.tick(), 60);
  }
  use(films, fps) {
    this.films = films;
    this.fps = fps || this.fps;
    this.element.hidden = films.length === 0;
    for (const film of films) {
      Object.assign(film, { muted: true, loop: false, playsInline: true, preload: "auto" });
      film.tabIndex = -1;
    }
    this.begin = performance.now();
  }
  length() {
    return Math.max(0.1, ...this.films.map((film) => film.duration || 0));
  }
  now() {
    return this.playing ? ((performance.now() - this.begin) / 1000) % this.length() : this.held;
  }
  toggle() {
    const now = this.now();
    this.playing = !this.playing;
    this.held = now;
    this.begin = performance.now() - now * 1000;
    this.button.textContent = this.playing ? "Pause" : "Play";
    this.tick();
  }
  seek(seconds) {
    if (this.playing) this.toggle();
    this.held = Math.max(0, Math.min(seconds, this.length() - 0.001));
    this.tick();
  }
  step(count) {
    const frame = Math.round(this.now() * this.fps - 0.5 + 1e-6) + count;
    const frames = Math.round(this.length() * this.fps);
    this.seek(((((frame % frames) + frames) % frames) + 0.5) / this.fps);
  }
  tick() {
    const now = this.now() || 0;
    this.place.max = this.length();
    if (document.activeElement !== this.place || this.playing) this.place.value = now;
    this.time.textContent = `${now.toFixed(1)} s`;
    for (const film of this.films) {
      if (!film.isConnected || film.readyState < 1) continue;
      const target = Math.min(now, Math.max(0, film.duration - 0.01));
      const beyond = now > film.duration;
      if (this.playing && !beyond && film.paused) film.play().catch(() => {});
      if ((!this.playing || beyond) && !film.paused) film.pause();
      if (Math.abs(film.currentTime - target) > 0.5 / this.fps) film.currentTime = target;
    }
  }
}
