// The score of ten minutes as a line, with threshold, events and a cursor for pointer and keyboard.

import { clock, duration, el, score, svg } from "./text.js";

const HEIGHT = 150;
const LEFT = 30, RIGHT = 8, TOP = 8, BOTTOM = 22;
const GAP_S = 5; // without a score: the line is interrupted
const HIGHEST = 4; // of the drawing; peaks above are cut
const NOTHING = { t: [], score: [], stretches: [], threshold: 1, window_s: 600, now_s: 0 };
let drawn = 0;

export class Chart {
  constructor(camera) {
    this.data = NOTHING;
    this.cursor = null; // index of a score
    this.above = `above-${drawn}`;
    this.below = `below-${drawn++}`;
    this.readout = el("p", { class: "readout soft" }, " ");
    this.drawing = svg("svg", { height: HEIGHT, "aria-hidden": "true" });
    this.box = el(
      "div",
      { class: "chart", tabindex: 0, role: "slider", "aria-label": `Score of ${camera} over the last ten minutes` },
      this.drawing,
    );
    this.element = el("div", {}, this.box, this.readout);
    this.box.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.box.addEventListener("pointerleave", () => this.point(null));
    this.box.addEventListener("blur", () => this.point(null));
    this.box.addEventListener("keydown", (event) => this.step(event));
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  update(data) {
    this.data = data.now_s == null ? NOTHING : data;
    this.cursor = null;
    if (this.held != null) this.cursor = nearest(data.t, this.held);
    this.draw();
  }

  draw() {
    const width = this.box.clientWidth;
    const data = this.data;
    if (!width) return;
    this.width = width;
    this.bottom = HEIGHT - BOTTOM;
    this.top = Math.min(Math.max(1.6, 1.1 * Math.max(...data.score, 0)), HIGHEST);
    const threshold = this.y(data.threshold);
    const path = this.path();
    this.drawing.replaceChildren(
      svg("defs", {}, this.clip(this.above, 0, threshold), this.clip(this.below, threshold, HEIGHT)),
      ...data.stretches.map((stretch) => this.stretch(stretch)).filter(Boolean),
      svg("line", { class: "rule", x1: LEFT, x2: width - RIGHT, y1: this.bottom, y2: this.bottom }),
      svg("line", { class: "threshold", x1: LEFT, x2: width - RIGHT, y1: threshold, y2: threshold }),
      this.text("threshold", LEFT + 4, threshold - 5, "start"),
      ...[0, 1, ...(this.top > 2.2 ? [Math.floor(this.top)] : [])].map((v) => this.text(v, LEFT - 7, this.y(v) + 4, "end")),
      ...this.minutes(),
      svg("path", { class: "line", d: path, "clip-path": `url(#${this.below})` }),
      svg("path", { class: "line high", d: path, "clip-path": `url(#${this.above})` }),
      ...this.mark(),
    );
    this.tell();
  }

  x(t) {
    const share = 1 - (this.data.now_s - t) / this.data.window_s;
    return LEFT + (this.width - LEFT - RIGHT) * Math.min(Math.max(share, 0), 1);
  }

  y(value) {
    return this.bottom - (this.bottom - TOP) * Math.min(Math.max(value / this.top, 0), 1);
  }

  path() {
    const { t, score: scores } = this.data;
    return t.map((at, i) => {
      const start = i === 0 || at - t[i - 1] > GAP_S;
      return `${start ? "M" : "L"}${this.x(at).toFixed(1)} ${this.y(scores[i]).toFixed(1)}`;
    }).join("");
  }

  clip(id, top, bottom) {
    return svg("clipPath", { id }, svg("rect", { x: 0, y: top, width: this.width, height: bottom - top }));
  }

  stretch({ start_s: start, end_s: end }) {
    if (start == null || (end ?? Infinity) < this.data.now_s - this.data.window_s) return null;
    const left = this.x(start), right = this.x(end ?? this.data.now_s);
    return svg("rect", { class: "stretch", x: left, y: TOP, width: Math.max(right - left, 2), height: this.bottom - TOP });
  }

  text(content, x, y, anchor) {
    return svg("text", { x, y, "text-anchor": anchor }, String(content));
  }

  minutes() {
    const step = this.width < 420 ? 5 : 2;
    const labels = [];
    for (let minute = 0; minute * 60 <= this.data.window_s; minute += step) {
      const x = this.x(this.data.now_s - 60 * minute);
      const anchor = minute === 0 ? "end" : minute * 60 === this.data.window_s ? "start" : "middle";
      const name = minute === 0 ? "now" : minute * 60 === this.data.window_s ? `−${minute} min` : `−${minute}`;
      labels.push(this.text(name, x, HEIGHT - 6, anchor));
    }
    return labels;
  }

  mark() {
    if (this.cursor == null || this.cursor < 0) return [];
    const x = this.x(this.data.t[this.cursor]);
    return [
      svg("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: this.bottom }),
      svg("circle", { class: "dot", cx: x, cy: this.y(this.data.score[this.cursor]), r: 4 }),
    ];
  }

  // Below the drawing, in one line that is always there: the score under the cursor, or the highest.
  tell() {
    const { t, score: scores } = this.data;
    const none = t.length === 0;
    const index = this.cursor ?? scores.indexOf(Math.max(...scores));
    const told = none ? "no scores yet" : this.told(index);
    this.readout.textContent = none || this.cursor != null ? told : `highest ${told}`;
    const last = this.cursor ?? t.length - 1;
    const range = { valuemin: 0, valuemax: Math.max(t.length - 1, 0), valuenow: Math.max(last, 0) };
    for (const [name, value] of Object.entries(range)) this.box.setAttribute(`aria-${name}`, value);
    this.box.setAttribute("aria-valuetext", none ? told : this.told(last));
  }

  told(index) {
    const ago = this.data.now_s - this.data.t[index];
    const at = clock(new Date(Date.now() - 1000 * ago));
    const when = ago < 1.5 ? "just now" : `${duration(Math.round(ago))} ago`;
    return `${score(this.data.score[index])} at ${at}, ${when}`;
  }

  point(offset) {
    if (!this.data.t.length) return;
    const share = offset == null ? null : (offset - LEFT) / (this.width - LEFT - RIGHT);
    this.held = share == null ? null : this.data.now_s - (1 - share) * this.data.window_s;
    this.cursor = share == null ? null : nearest(this.data.t, this.held);
    this.draw();
  }

  step(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageDown: -60, PageUp: 60, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || !this.data.t.length) return;
    event.preventDefault();
    const last = this.data.t.length - 1;
    this.cursor = Math.min(Math.max((this.cursor ?? last) + steps[event.key], 0), last);
    this.held = this.data.t[this.cursor];
    this.draw();
  }
}

function nearest(times, wanted) {
  let best = 0;
  times.forEach((t, i) => {
    if (Math.abs(t - wanted) < Math.abs(times[best] - wanted)) best = i;
  });
  return times.length ? best : null;
}
