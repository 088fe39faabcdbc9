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
function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
const rect = (kind, width) => svg("rect", { class: kind, x: 0, y: 0, width, height: 10 });

// As `web.charts.bar`.
export function bar(share, kind, mark) {
  const box = { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" };
  const line = { class: "mark", x1: 100 * mark, x2: 100 * mark, y1: 0, y2: 10 };
  return svg("svg", box, rect("track", 100), rect(`fill ${kind}`, 100 * share), svg("line", line));
}

export function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

// What the head says of the service is old: it must not go on saying that it runs.
export function sayOfService(words) {
  const service = document.querySelector('[data-region="service"]');
  if (service.textContent === words) return; // a voice has said so
  service.replaceChildren(element("p", "service off", words));
}

// What stands where there is nothing to see, as `macros.picture` has it.
export function noPicture() {
  const icon = svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: "#i-none" }));
  return element("span", "thumb none", icon);
}

// A file may be gone, changed, or on a share that is away: then there is no picture of it.
function replaceIfBroken(image) {
  if (image.matches?.("img.thumb") && image.complete && !image.naturalWidth) {
    image.replaceWith(noPicture());
  }
}
document.addEventListener("error", (event) => replaceIfBroken(event.target), true);
document.querySelectorAll("img.thumb").forEach(replaceIfBroken);

// A page that the server has rendered: only its elements are taken over, and no script in it runs.
export const parsed = (html) => new DOMParser().parseFromString(html, "text/html").body.children;
