// The list of events, the player of their clips, and the log of everything else.

import { capital, duration, el, moment, say, score, words } from "./text.js";

const SHORT = 6; // events before "Show older events"
const byId = (id) => document.getElementById(id);

export class Events {
  constructor() {
    this.all = false;
    this.shown = "";
    this.heard = null;
    byId("more").addEventListener("click", () => {
      this.all = !this.all;
      this.list();
    });
  }

  update(events) {
    this.events = events;
    this.list();
    const newest = events[0]?.key;
    if (this.heard !== null && newest && newest !== this.heard) {
      say(byId("said"), `Alarm on ${events[0].camera}, peak score ${score(events[0].peak_score)}`);
    }
    this.heard = newest ?? "";
  }

  // Rebuilt only where something has changed: the pictures are not loaded again, the focus stays.
  list() {
    const shown = this.all ? this.events : this.events.slice(0, SHORT);
    const text = JSON.stringify([shown, this.events.length > SHORT]);
    if (text === this.shown) return;
    this.shown = text;
    const before = new Map([...byId("events").children].map((item) => [item.dataset.text, item]));
    byId("events").replaceChildren(...shown.map((event) => before.get(JSON.stringify(event)) || item(event)));
    byId("no-events").hidden = this.events.length > 0;
    byId("more").hidden = this.events.length <= SHORT;
    say(byId("more"), this.all ? "Show fewer" : `Show ${this.events.length - SHORT} older`);
  }
}

function item(event) {
  const title = `${event.camera}, ${moment(event.time)}`;
  const picture = event.snapshot
    ? el("button", { type: "button", class: "thumb", "aria-label": `Snapshot: ${title}` }, thumbnail(event))
    : el("div", { class: "thumb none" }, "No picture");
  if (event.snapshot) picture.addEventListener("click", () => play(title, event.snapshot, event.snapshot, "Snapshot"));
  const lasts = { running: "still going on", over: duration(event.duration_s), "cut off": "cut off by a restart" };
  const made = el(
    "li",
    { class: "event" },
    picture,
    el(
      "div",
      {},
      el("p", {}, el("b", {}, event.camera), event.state === "running" && el("span", { class: "chip bad" }, "Now")),
      el("p", { class: "soft" }, `${moment(event.time)} · ${lasts[event.state]}`),
      el("p", { class: "soft" }, "peak ", el("b", { class: "peak" }, score(event.peak_score)), because(event)),
      links(event, title),
    ),
  );
  made.dataset.text = JSON.stringify(event);
  return made;
}

function thumbnail(event) {
  return el("img", { src: event.thumbnail, alt: "", width: 96, height: 64, loading: "lazy" });
}

// The component that stands out most.
function because(event) {
  const highest = Object.entries(event.components || {}).sort(([, a], [, b]) => b - a)[0];
  return highest && highest[1] > 0 ? ` · ${words(highest[0])}` : "";
}

function links(event, title) {
  if (!event.clip) return null;
  const button = el("button", { type: "button", "aria-label": `Play clip: ${title}` }, "Play clip");
  button.addEventListener("click", () => play(title, event.clip, event.download, "Clip"));
  const download = el("a", { href: event.download, download: "", "aria-label": `Download clip: ${title}` }, "Download");
  return el("p", { class: "actions" }, button, download);
}

// A clip comes as pictures, one replacing the other; closing the dialog ends the connection.
function play(title, address, download, kind) {
  const picture = byId("player-picture");
  const start = () => (picture.src = `${address}?t=${Date.now()}`);
  say(byId("player-title"), `${kind}: ${title}`);
  say(byId("player-text"), kind === "Clip" ? "At its own speed. The file is a motion-JPEG AVI." : "");
  picture.alt = `${kind} of ${title}`;
  byId("again").hidden = kind !== "Clip";
  byId("again").onclick = start;
  byId("download").href = download;
  byId("player").onclose = () => picture.removeAttribute("src");
  byId("player").showModal();
  start();
}

const TOLD = {
  "camera lost": "Camera lost",
  "camera back": "Camera is back",
  "camera resized": "Picture size changed",
  "view clear": "View is clear again",
  "view black": "Picture is black",
  "view covered": "Lens is covered",
  "view frozen": "Picture is frozen",
  "load degraded": "Cannot keep up: frames are dropped",
  "load normal": "Keeps up again",
  "storage full": "Storage is full",
  "storage writable": "Storage is writable again",
  "unit started": "Unit started",
  "unit stopped": "Unit stopped",
};

export function tellNotices(notices) {
  const list = byId("notices");
  const text = JSON.stringify(notices);
  if (list.dataset.text === text) return;
  list.dataset.text = text;
  list.replaceChildren(
    ...notices.map((notice) => {
      const told = TOLD[`${notice.type} ${notice.kind}`] || capital(words(`${notice.type} ${notice.kind}`));
      const gap = notice.gap_s == null ? "" : ` after ${duration(notice.gap_s)}`;
      const reason = notice.reason ? `: ${notice.reason}` : "";
      const camera = notice.camera ? `${notice.camera}: ` : "";
      return el("li", {}, el("time", { class: "soft", datetime: notice.time }, moment(notice.time)), `${camera}${told}${gap}${reason}`);
    }),
  );
}
