// Numbers and times as people read them, and the few lines that make elements.

const whole = new Intl.NumberFormat("en");
const day = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });

export const count = (n) => (n == null ? "–" : whole.format(n));
export const score = (value) => (value == null ? "–" : value.toFixed(2).replace(/^-0\.00$/, "0.00").replace("-", "−"));
export const rate = (value) => (value == null ? "–" : value.toFixed(1));
export const number = (value) => (value < 10 ? value.toFixed(1) : whole.format(Math.round(value)));
export const ms = (value) => (value == null ? "–" : `${number(value)} ms`);
export const megabytes = (mb) => (mb >= 1024 ? `${(mb / 1024).toFixed(1)} GB` : `${Math.round(mb)} MB`);
export const words = (name) => String(name).replaceAll("_", " ");
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export const many = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

export function percent(part, all) {
  const share = all ? (100 * part) / all : 0;
  return `${share > 0 && share < 10 ? share.toFixed(1) : Math.round(share)} %`;
}

export function duration(s) {
  if (s == null) return "–";
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.round(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

const two = (n) => String(n).padStart(2, "0");
export const clock = (date) => `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;

export function moment(iso) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return "";
  const today = date.toDateString() === new Date().toDateString();
  return today ? clock(date) : `${day.format(date)}, ${clock(date)}`;
}

// el("p", { class: "soft", title: "..." }, "text", child, ...)
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value != null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}

// Changes nothing on the page where nothing has changed: focus and selections stay.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Pairs of a description list; the elements stay as long as the names do.
export function describe(list, rows) {
  const names = rows.map(([name]) => name).join("\n");
  if (list.dataset.names !== names) {
    list.dataset.names = names;
    list.replaceChildren(...rows.map(([name]) => el("div", {}, el("dt", {}, name), el("dd"))));
  }
  rows.forEach(([, text, state], index) => {
    say(list.children[index].lastChild, text);
    list.children[index].className = state || "";
  });
}
