// One camera: its live picture, score, stages and counters.

import { Chart } from "./chart.js";
import { visible } from "./poll.js";
import { count, describe, el, ms, number, percent, rate, say, score, svg, words } from "./text.js";

const PICTURE_MS = 330; // between two pictures
const RETRY_MS = 2000;
const WIDE = "(min-width: 48rem)"; // as in page.css
const STATES = { running: "Watching", connecting: "Connecting", lost: "Camera lost", failed: "Failed", ended: "Ended" };
const VIEWS = { black: "Picture is black", covered: "Lens is covered", frozen: "Picture is frozen" };

export class Camera {
  constructor(name) {
    this.name = name;
    this.chart = new Chart(name);
    this.chip = el("span", { class: "chip" });
    this.now = el("b", {}, "–");
    this.picture = null; // the element that is shown
    this.none = el("p", { class: "none" }, "No picture yet");
    this.note = el("p", { class: "note" });
    this.frame = el("div", { class: "frame" }, this.none, this.note);
    this.map = el("input", { type: "checkbox", checked: true });
    this.stages = svg("svg", { class: "stages", height: 14, width: "100%", "aria-hidden": "true" });
    this.legend = el("ul", { class: "legend" });
    this.total = el("span");
    this.counts = el("dl", { class: "counts" });
    this.bundle = el("p", { class: "soft bundle" });
    this.element = this.layout();
    this.hasPicture = this.running = false;
    this.onScreen = true;
    new IntersectionObserver(([entry]) => (this.onScreen = entry.isIntersecting)).observe(this.frame);
    this.map.addEventListener("change", () => this.load());
    this.watch();
  }

  layout() {
    const id = `camera-${this.name}`;
    return el(
      "article",
      { class: "card camera", "aria-labelledby": id },
      el("header", {}, el("h2", { id }, this.name), this.chip, el("p", { class: "score" }, this.now, " score")),
      el(
        "div",
        { class: "view" },
        el("figure", {}, this.frame, el("label", { class: "switch" }, this.map, "Anomaly map and boxes")),
        el(
          "div",
          { class: "data" },
          el("h3", {}, "Score, last 10 minutes"),
          this.chart.element,
          el("h3", {}, "Time for a frame", this.total),
          this.stages,
          this.legend,
        ),
      ),
      // On a phone the counters wait until they are asked for.
      el("details", { open: matchMedia(WIDE).matches }, el("summary", {}, "Counters and bundle"), this.counts, this.bundle),
    );
  }

  update(status, alarm) {
    const bad = status.state === "lost" || status.state === "failed";
    this.running = status.state === "running";
    const trouble = status.reason ? "Trouble" : status.degraded ? "Cannot keep up" : null;
    const warning = this.running ? VIEWS[status.view] || trouble : null;
    const state = alarm || bad ? "bad" : warning ? "warn" : this.running ? "good" : "";
    say(this.chip, alarm ? "Alarm" : bad ? STATES[status.state] : warning || STATES[status.state] || words(status.state));
    this.chip.className = `chip ${state}`;
    this.element.classList.toggle("alarm", alarm);
    say(this.note, status.reason || (bad ? STATES[status.state] : ""));
    this.note.hidden = !this.note.textContent;
    this.frame.classList.toggle("old", bad);
    this.hasPicture = Boolean(status.picture);
    if (status.picture) this.frame.style.aspectRatio = status.picture.join(" / ");
    this.none.hidden = this.hasPicture || bad;
    this.drawStages(status.stage_ms || {});
    this.tellCounts(status);
    const trial = status.on_trial ? ", on trial" : "";
    const { name, serial, id } = status.bundle || {};
    say(this.bundle, `Bundle ${name ?? "–"}, serial ${serial ?? "–"} (${id ?? "–"})${trial}. Runs on ${status.backend}.`);
  }

  // Younger than the score of the status.
  tellScores(data) {
    this.chart.update(data);
    const now = this.running ? data.score.at(-1) : null;
    say(this.now, score(now));
    this.now.className = now >= 1 ? "high" : "";
  }

  tellCounts(status) {
    const latency = status.latency_ms || {};
    describe(this.counts, [
      ["Scored of captured", status.fps ? `${rate(status.fps.scored)} of ${rate(status.fps.captured)} fps` : "–"],
      ["Captured", count(status.captured)],
      ["Scored", count(status.scored)],
      ["Dropped", `${count(status.dropped)} (${percent(status.dropped, status.captured)})`],
      ["Camera lost", status.lost === 1 ? "once" : `${count(status.lost)} times`],
      ["Events", count(status.events)],
      ["Latency", latency.p50 == null ? "–" : `${ms(latency.p50)}, p99 ${number(latency.p99)}`],
    ]);
  }

  drawStages(stages) {
    const entries = Object.entries(stages);
    const total = entries.reduce((sum, [, value]) => sum + value, 0);
    let left = 0;
    const bars = entries.map(([, value], i) => {
      const width = total ? (100 * value) / total : 0;
      const bar = svg("rect", { class: `s${i % 8}`, x: `${left}%`, width: `${width}%`, height: 14 });
      left += width;
      return bar;
    });
    this.stages.replaceChildren(...bars);
    say(this.total, total ? ms(total) : "–");
    const keys = entries.map(([name]) => name).join("\n");
    if (this.legend.dataset.names !== keys) {
      this.legend.dataset.names = keys;
      this.legend.replaceChildren(
        ...entries.map(([name], i) => el("li", {}, el("i", { class: `s${i % 8}` }), words(name), " ", el("b"))),
      );
    }
    entries.forEach(([, value], i) => say(this.legend.children[i].lastChild, ms(value)));
  }

  // One picture after the other, as fast as they come, while somebody can see them.
  async watch() {
    for (;;) {
      await visible();
      const wanted = this.hasPicture && this.onScreen && (this.running || !this.picture);
      const good = wanted ? await this.load() : true;
      await new Promise((resolve) => setTimeout(resolve, good ? PICTURE_MS : RETRY_MS));
    }
  }

  // The picture before stays until the next one is there, and for as long as there is none.
  async load() {
    const next = el("img", { alt: `Live picture of ${this.name}` });
    next.src = `/live/${this.name}.jpg?map=${this.map.checked ? 1 : 0}&t=${Date.now()}`;
    try {
      await next.decode();
    } catch {
      return false;
    }
    if (this.picture) this.picture.replaceWith(next);
    else this.frame.prepend(next);
    this.picture = next;
    return true;
  }
}
