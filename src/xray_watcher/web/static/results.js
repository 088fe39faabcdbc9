// The results of one batch: counted, grouped by level and put on the page, some at a time.

import { bar, byId, count, element, noPicture, percent, safeName } from "./common.js";

export const LEVELS = ["High", "Medium", "Low", "Rejected"];

const AT_ONCE = 80; // items that are put on the page in one go, so that it stays responsive
const PAUSE_MS = 40;

const flagLabels = new Map(
  [...byId("flag-labels").content.children].map((flag) => [flag.dataset.name, flag.textContent]),
);
const SAID_IN_VERDICT = new Set(["no_finding", "higher_risk_present"]); // as `pages.views`
const points = JSON.parse(byId("upload").dataset.points); // level and operating point by condition
const levelOf = (name) => points[name]?.[0] ?? "";
const pointOf = (name) => points[name]?.[1] ?? 0.5;
const isRuled = (result) => result.flags.includes("no_finding");

export class Results {
  constructor() {
    this.all = [];
    this.counts = Object.fromEntries(LEVELS.map((level) => [level, 0]));
    this.ruled = { ...this.counts }; // those of them without a finding
    this.waiting = [];
    this.timer = 0;
    this.isOver = false;
    for (const level of LEVELS) {
      group(level).hidden = true;
      group(level).querySelector(".results").replaceChildren();
    }
    this.showCounts();
  }

  add(result) {
    this.all[result.position] = result;
    this.counts[result.risk_level] += 1;
    this.ruled[result.risk_level] += isRuled(result);
    this.waiting.push(result);
    this.timer ||= setTimeout(() => this.show(), PAUSE_MS);
  }

  get done() {
    return LEVELS.reduce((sum, level) => sum + this.counts[level], 0);
  }

  get inOrder() {
    return this.all.filter(Boolean);
  }

  get words() {
    return LEVELS.map((level) => `${level} ${count(this.counts[level])}`).join(", ");
  }

  // The next items, now: those that wait behind them follow by themselves.
  show() {
    clearTimeout(this.timer);
    this.timer = 0;
    const fragments = new Map();
    for (const result of this.waiting.splice(0, AT_ONCE)) {
      const level = result.risk_level;
      if (!fragments.has(level)) fragments.set(level, new DocumentFragment());
      fragments.get(level).append(item(result));
    }
    for (const [level, fragment] of fragments) {
      group(level).hidden = false;
      group(level).querySelector(".results").append(fragment);
    }
    this.showCounts();
    if (this.waiting.length) this.timer = setTimeout(() => this.show(), PAUSE_MS);
    else if (this.isOver) this.arrange();
  }

  finish() {
    this.isOver = true;
    this.show();
  }

  // By score within each level, those with a finding first.
  arrange() {
    const focused = document.activeElement;
    const rank = (result) => [isRuled(result) ? 0 : 1, result.top_probability ?? 0];
    for (const level of LEVELS) {
      const list = group(level).querySelector(".results");
      const key = new Map([...list.children].map((line) => [line, rank(this.all[line.dataset.position])]));
      list.append(...[...key.keys()].sort((a, b) => {
        const [first, second] = [key.get(a), key.get(b)];
        return second[0] - first[0] || second[1] - first[1];
      }));
    }
    focused?.focus({ preventScroll: true });
  }

  showCounts() {
    for (const level of LEVELS) {
      const ruled = this.ruled[level];
      const found = element("small", "", `${count(this.counts[level] - ruled)} with a finding`);
      byId(`count-${level.toLowerCase()}`).textContent = count(this.counts[level]);
      byId(`found-${level.toLowerCase()}`)?.replaceChildren(...(ruled ? [found] : []));
      group(level).querySelector(".count").textContent = `(${count(this.counts[level])})`;
    }
  }
}

const group = (level) => byId(`group-${level.toLowerCase()}`);

function item(result) {
  const line = byId("result").content.firstElementChild.cloneNode(true);
  const find = (selector) => line.querySelector(selector);
  line.classList.add(result.risk_level.toLowerCase());
  line.classList.toggle("ruled", isRuled(result));
  line.dataset.position = result.position;
  find(".frame").replaceWith(picture(result));
  find("bdi").textContent = safeName(result.filename);
  if (result.index === null) find("a").replaceWith(find("bdi"));
  else find("a").href = `/images/${result.index}`;
  find(".name").prepend(badge(result), ...higher(result));
  find(".top").append(...verdict(result));
  find(".path").textContent = result.saved_path === null ? "" : safeName(result.saved_path);
  find(".path").hidden = result.saved_path === null;
  showFlags(find(".flags"), result);
  if (result.top_predictions.length) find(".three").append(...result.top_predictions.map(prediction));
  else find(".three").remove();
  return line;
}

function badge(result) {
  const found = byId("badges").content.querySelector(`.${result.risk_level.toLowerCase()}`).cloneNode(true);
  found.classList.toggle("hollow", isRuled(result));
  return found;
}

// As `macros.higher`.
function higher(result) {
  if (!result.flags.includes("higher_risk_present")) return [];
  const urgent = LEVELS.slice(0, LEVELS.indexOf(result.risk_level));
  return Object.entries(result.all_probs)
    .filter(([name, prob]) => prob >= pointOf(name) && urgent.includes(levelOf(name)))
    .map(([name, prob]) => {
      const words = `also ${label(name)} ${percent(prob)} (${levelOf(name)}; point ${percent(pointOf(name))})`;
      const made = byId("badges").content.querySelector(`.${levelOf(name).toLowerCase()}`).cloneNode(true);
      made.classList.add("hollow", "also");
      made.lastChild.replaceWith(words);
      return made;
    });
}

// As `macros.verdict`.
function verdict(result) {
  if (result.error) return [element("strong", "", result.error.code), ` ${result.error.message}`];
  const name = label(result.top_label);
  const score = element("span", "confidence", percent(result.top_probability));
  const point = `point ${percent(pointOf(result.top_label))}`;
  if (!isRuled(result)) {
    return [element("strong", "label", name), " ", score, " ", element("span", "point", `(${point})`)];
  }
  const why = `${result.risk_level} by rule, no condition reached its operating point (highest: ${name} `;
  return [why, score, `, ${point})`];
}

function picture(result) {
  if (result.index === null || result.risk_level === "Rejected" || result.saved_path === null) {
    return noPicture();
  }
  const image = new Image(96, 96);
  image.className = "thumb";
  image.loading = "lazy";
  image.decoding = "async";
  image.alt = "";
  image.src = `/images/${result.index}/thumbnail.png`;
  return image;
}

function showFlags(list, result) {
  const flags = result.flags.filter((name) => !SAID_IN_VERDICT.has(name));
  list.hidden = !flags.length;
  for (const name of flags) {
    const flag = element("li", "", flagLabels.get(name) ?? name);
    if (name === "duplicate_of" && typeof result.duplicate_of === "number") {
      const link = document.createElement("a");
      link.href = `/images/${result.duplicate_of}`;
      link.textContent = String(result.duplicate_of).padStart(4, "0");
      flag.append(" ", link);
    }
    list.append(flag);
  }
}

function prediction({ label: name, prob }) {
  const mark = pointOf(name);
  const share = element("span", "number", percent(prob));
  share.append(element("span", "hidden", `, operating point ${percent(mark)}`));
  const words = element("span", "", label(name));
  const kind = levelOf(name).toLowerCase();
  return element("li", prob >= mark ? "present" : "absent", words, bar(prob, kind, mark), share);
}

const label = (name) => name.replaceAll("_", " ");
