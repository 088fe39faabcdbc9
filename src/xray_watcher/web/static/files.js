// Which files were chosen: from the two dialogues, or dropped, alone or with whole folders.

import { byId, bytes, images, safeName } from "./common.js";

const NAMES_SHOWN = 8;

// All files of what was dropped; a browser hands out a folder's entries in pieces.
export async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  return (await Promise.all(entries.map(filesOf))).flat();
}

async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return found;
    for (const inner of entries) found.push(...(await filesOf(inner)));
  }
}

export class Chosen {
  constructor(suffixes) {
    this.suffixes = suffixes;
    this.files = [];
    this.others = [];
  }

  add(files, isSingle) {
    const taken = (file) => this.suffixes.some((suffix) => file.name.toLowerCase().endsWith(suffix));
    if (isSingle) this.clear();
    this.files.push(...files.filter(taken));
    this.others.push(...files.filter((file) => !taken(file)));
    if (isSingle) this.others.push(...this.files.splice(1));
    this.show(isSingle);
  }

  clear() {
    this.files = [];
    this.others = [];
    this.show(false);
  }

  // The first ones were taken. What was left out was named, and is over with them.
  drop(taken, isSingle) {
    this.files.splice(0, taken);
    if (!this.files.length) this.others = [];
    this.show(isSingle);
  }

  get bytes() {
    return this.files.reduce((sum, file) => sum + file.size, 0);
  }

  show(isSingle) {
    byId("chosen").hidden = !this.files.length && !this.others.length;
    byId("clear").hidden = byId("chosen").hidden;
    byId("predict").disabled = !this.files.length;
    byId("chosen-words").textContent = `${images(this.files.length)} selected, ${bytes(this.bytes)}`;
    byId("chosen-names").replaceChildren(...names(this.files));
    const why = isSingle ? "Single Image takes one picture" : `only ${this.suffixes.join(", ")} files are scored`;
    byId("left-out").hidden = !this.others.length;
    byId("left-out").textContent = `Left out, since ${why}: ${list(this.others)}`;
  }
}

function names(files) {
  const shown = files.length > NAMES_SHOWN ? NAMES_SHOWN - 1 : files.length;
  const lines = files.slice(0, shown).map((file) => safeName(file.name));
  if (shown < files.length) lines.push(`and ${files.length - shown} more`);
  return lines.map((line) => {
    const item = document.createElement("li");
    item.textContent = line;
    return item;
  });
}

function list(files) {
  const shown = files.slice(0, 3).map((file) => safeName(file.name)).join(", ");
  return files.length > 3 ? `${shown} and ${files.length - 3} more.` : `${shown}.`;
}
