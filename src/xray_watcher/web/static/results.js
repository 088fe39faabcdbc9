// The results of one batch: counted, grouped by level and put on the page, some at a time.

import { bar, byId, count, noPicture, percent, safeName } from "./common.js";

export const LEVELS = ["High", "Medium", "Low", "Rejected"];

const AT_ONCE = 80; // items that are put on the page in one go, so that it stays responsive
const PAUSE_MS = 40;

const flagWords = new Map(
  [...byId("flag-words").content.children].map((flag) => [flag.textContent, flag.title]),
);

export class Results {
  constructor() {
    this.all = [];
    this.counts = Object.fromEntries(LEVELS.map((level) => [level, 0]));
    this.waiting = [];
    this.timer = 0;
    for (const level of LEVELS) {
      group(level).hidden = true;
      group(level).querySelector(".results").replaceChildren();
    }
    this.showCounts();
  }

  add(result) {
    this.all[result.position] = result;
    this.counts[result.risk_level] += 1;
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
  }

  showCounts() {
    for (const level of LEVELS) {
      byId(`count-${level.toLowerCase()}`).textContent = count(this.counts[level]);
      group(level).querySelector(".count").textContent = `(${count(this.counts[level])})`;
    }
  }
}

const group = (level) => byId(`group-${level.toLowerCase()}`);

function item(result) {
  const line = byId("result").content.firstElementChild.cloneNode(true);
  const find = (selector) => line.querySelector(selector);
  line.classList.add(result.risk_level.toLowerCase());
  find(".frame").replaceWith(picture(result));
  find("bdi").textContent = safeName(result.filename);
  if (result.index === null) find("a").replaceWith(find("bdi"));
  else find("a").href = `/images/${result.index}`;
  find(".label").textContent = result.error ? result.error.code : label(result.top_label);
  find(".confidence").textContent = result.error ? result.error.message : percent(result.top_probability);
  find(".path").textContent = result.saved_path === null ? "" : safeName(result.saved_path);
  find(".path").hidden = result.saved_path === null;
  if (result.error) find(".confidence").className = "";
  showFlags(find(".flags"), result);
  if (result.top_predictions.length) find(".three").append(...result.top_predictions.map(prediction));
  else find(".three").remove();
  return line;
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
  list.hidden = !result.flags.length;
  for (const name of result.flags) {
    const flag = document.createElement("li");
    flag.textContent = name;
    flag.title = flagWords.get(name) ?? "";
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
  const line = document.createElement("li");
  const words = document.createElement("span");
  words.textContent = label(name);
  const share = document.createElement("span");
  share.className = "number";
  share.textContent = percent(prob);
  line.append(words, bar(prob), share);
  return line;
}

const label = (name) => name.replaceAll("_", " ");
