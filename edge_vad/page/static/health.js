// What the unit says of itself beside its cameras: delivery, storage, board.

import { capital, count, describe, many, megabytes } from "./text.js";

export function tellHealth(list, status) {
  describe(list, [
    camerasRow(status.cameras),
    ...Object.entries(status.delivery || {}).map(([name, told]) => deliveryRow(name, told)),
    ...mediaRows(status.media || {}),
    ...deviceRows(status.device || {}),
  ]);
}

function camerasRow(cameras) {
  const states = Object.values(cameras).map((camera) => camera.state);
  const well = states.filter((state) => state === "running" || state === "ended").length;
  return ["Cameras", `${well} of ${states.length} work`, well === states.length ? "good" : "bad"];
}

function deliveryRow(name, told) {
  const parts = [`${count(told.delivered)} delivered`];
  if (told.pending) parts.push(`${count(told.pending)} waiting`);
  if (told.lost) parts.push(`${count(told.lost)} lost`);
  if (told.refused) parts.push(`${count(told.refused)} refused`);
  if (told.last_error) parts.push(told.last_error);
  const state = told.last_error ? "bad" : told.lost || told.refused ? "warn" : "good";
  return [name === "log" ? "Event log" : `Sink ${name}`, parts.join(", "), state];
}

function mediaRows(media) {
  return Object.entries(media).map(([camera, told]) => {
    const parts = [many(told.snapshots, "snapshot"), many(told.clips, "clip")];
    if (told.open) parts.push(`${told.open} being written`);
    if (told.failed) parts.push(`${count(told.failed)} failed`);
    if (told.last_error) parts.push(told.last_error);
    return [`Pictures of ${camera}`, parts.join(", "), told.last_error ? "bad" : told.failed ? "warn" : "good"];
  });
}

function deviceRows(device) {
  const rows = [];
  if (device.model) rows.push(["Board", device.model]);
  if (device.temperature_c != null) {
    const state = device.temperature_c >= 80 ? "bad" : device.temperature_c >= 70 ? "warn" : "good";
    rows.push(["Temperature", `${device.temperature_c.toFixed(1)} °C`, state]);
  }
  if (device.throttled) {
    const now = device.throttled.some((text) => !text.includes("since boot"));
    rows.push(["Power", capital(device.throttled.join(", ")) || "Fine", device.throttled.length ? (now ? "bad" : "warn") : "good"]);
  }
  if (device.power_w != null) rows.push(["Consumption", `${device.power_w.toFixed(1)} W`]);
  if (device.clock_mhz != null) rows.push(["Clock", `${count(Math.round(device.clock_mhz))} MHz`]);
  if (device.load != null) rows.push(["Load", device.load.toFixed(2)]);
  if (device.memory_mb != null) rows.push(["Memory", `${megabytes(device.memory_mb)} used`]);
  if (device.available_mb != null) rows.push(["Free memory", megabytes(device.available_mb), device.available_mb < 100 ? "warn" : ""]);
  return rows;
}
