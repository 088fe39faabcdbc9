// What the scripts of several pages need. Text goes in as text, never as markup.

export const byId = (id) => document.getElementById(id);

// As `core.naming.safe_name`: characters that could mislead the eye are shown as %XX.
const UNSAFE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;
const encoder = new TextEncoder();
const escaped = (char) =>
  [...encoder.encode(char)].map((byte) => "%" + byte.toString(16).toUpperCase().padStart(2, "0")).join("");
export const safeName = (name) => name.replace(UNSAFE, escaped);

// As `pages.render.percent`.
export function percent(share) {
  const rounded = Math.round(100 * share);
  if (rounded === 0 && share > 0) return "<1 %";
  if (rounded === 100 && share < 1) return ">99 %";
  return `${rounded} %`;
}

const UNITS = ["bytes", "kB", "MB", "GB", "TB"];
export function bytes(count) {
  let unit = 0;
  for (; count >= 1000 && unit < UNITS.length - 1; unit += 1) count /= 1000;
  return `${unit ? count.toFixed(1) : count} ${UNITS[unit]}`;
}

export function duration(seconds) {
  const whole = Math.max(Math.round(seconds), 0);
  if (whole >= 3600) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return whole >= 60 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${whole} s`;
}

export const count = (number) => number.toLocaleString("en");
export const images = (number) => `${count(number)} ${number === 1 ? "image" : "images"}`;

const SVG = "http://www.w3.org/2000/svg";
function rect(kind, width) {
  const shape = document.createElementNS(SVG, "rect");
  for (const [name, value] of Object.entries({ class: kind, x: 0, y: 0, width, height: 10 })) {
    shape.setAttribute(name, value);
  }
  return shape;
}

// As `web.charts.bar`.
export function bar(share) {
  const chart = document.createElementNS(SVG, "svg");
  chart.setAttribute("class", "bar");
  chart.setAttribute("viewBox", "0 0 100 10");
  chart.setAttribute("preserveAspectRatio", "none");
  chart.setAttribute("aria-hidden", "true");
  chart.append(rect("track", 100), rect("fill plain", 100 * share));
  return chart;
}

// A page that the server has rendered: only its elements are taken over, and no script in it runs.
export const parsed = (html) => new DOMParser().parseFromString(html, "text/html").body.children;
