// The status page of a unit. It asks every two seconds; pictures come faster, see camera.js.

import { Camera } from "./camera.js";
import { Events, tellNotices } from "./events.js";
import { tellHealth } from "./health.js";
import { ask, poll } from "./poll.js";
import { describe, duration, say } from "./text.js";

const PERIOD_MS = 2000;
const STALE_S = 10;
const STATES = {
  running: "All well",
  starting: "Starting",
  connecting: "Connecting",
  lost: "Camera lost",
  failed: "Camera failed",
};
const byId = (id) => document.getElementById(id);
const cameras = new Map();
const events = new Events();

// The token came in the address once; the cookie has it now.
if (location.search.includes("token=")) history.replaceState(null, "", "/");

async function update() {
  try {
    const status = await ask("/api/status");
    const told = await ask("/api/events");
    show(status, told);
    for (const [name, camera] of cameras) {
      if (status.cameras[name]?.picture) camera.tellScores(await ask(`/api/scores?camera=${name}`));
    }
    const stale = status.age_s > STALE_S;
    warn(stale ? `The unit has said nothing for ${duration(status.age_s)}: it hangs or is very busy.` : "");
  } catch (error) {
    const lost = error instanceof TypeError || error.name === "TimeoutError";
    warn(lost ? "The unit does not answer. Trying again." : error.message);
  }
}

function show(status, { events: found, notices }) {
  say(byId("unit"), status.unit);
  const alarms = new Set(found.filter((event) => event.state === "running").map((event) => event.camera));
  for (const [name, camera] of Object.entries(status.cameras)) {
    if (!cameras.has(name)) {
      cameras.set(name, new Camera(name));
      byId("cameras").append(cameras.get(name).element);
    }
    cameras.get(name).update(camera, alarms.has(name) && camera.state === "running");
  }
  tellState(status, alarms);
  events.update(found);
  tellNotices(notices);
  tellHealth(byId("health"), status);
  byId("main").hidden = false;
}

function tellState(status, alarms) {
  const running = status.state === "running";
  const alarm = running && alarms.size > 0;
  const text = alarm ? "Alarm" : STATES[status.state] || "Stopping";
  say(byId("state"), text);
  const bad = alarm || status.state === "lost" || status.state === "failed";
  byId("state").className = `chip ${bad ? "bad" : running ? "good" : ""}`;
  document.title = `${bad ? `${text} · ` : ""}${status.unit}`;
  const temperature = status.device?.temperature_c;
  describe(byId("facts"), [
    ["Up ", duration(status.uptime_s)],
    ...(temperature == null ? [] : [["Temperature", `${temperature.toFixed(0)} °C`, temperature >= 80 ? "bad" : ""]]),
  ]);
}

function warn(text) {
  say(byId("banner"), text);
  byId("banner").hidden = !text;
  document.body.classList.toggle("stale", Boolean(text));
}

poll(update, PERIOD_MS);
