// The batch page: choose files, send them in one request, show each result as it comes.

import { byId, bytes, count, duration, images, parsed } from "./common.js";
import { Chosen, droppedFiles } from "./files.js";
import { Results } from "./results.js";
import { save, toCsv, toJson } from "./saving.js";

const SPOKEN_EVERY_MS = 6_000;

const form = byId("upload");
const chosen = new Chosen(form.dataset.suffixes.split(" "));
const notice = form.dataset.notice;
const isSingle = () => form.elements.mode.value === "single";
let run = null; // the request that is under way
let last = null; // the last batch that is over

// -- choosing ------------------------------------------------------------------------------

// A folder's files come in no order; those that were picked come in the order of the dialogue.
const byPath = new Intl.Collator("en", { numeric: true });
const inOrder = (a, b) => byPath.compare(a.webkitRelativePath, b.webkitRelativePath);

function choose(input) {
  chosen.add([...input.files].sort(inOrder), isSingle());
  input.value = "";
}

function changeMode() {
  byId("files").multiple = !isSingle();
  byId("no-limit").hidden = isSingle();
  byId("select-folder").hidden = isSingle() || !("webkitdirectory" in byId("folder"));
  byId("title").textContent = isSingle() ? "Single Image" : "Batch Risk Classification";
  byId("drop-words").textContent = isSingle()
    ? "Drag and drop one image here, or"
    : "Drag and drop images or a folder here, or";
  chosen.add([], isSingle());
}

async function drop(event) {
  event.preventDefault();
  byId("drop").classList.remove("over");
  if (run) return;
  try {
    chosen.add(await droppedFiles(event.dataTransfer), isSingle());
  } catch (error) {
    complain(`What was dropped cannot be read: ${error.message}`);
  }
}

// -- sending -------------------------------------------------------------------------------

class Run {
  constructor(files, single) {
    this.files = files;
    this.single = single;
    this.results = new Results();
    this.read = 0; // characters of the answer that are dealt with
    this.last = null; // its last line
    this.problem = ""; // why it broke off, in the service's own words
    this.sentAt = 0;
    this.spokenAt = 0;
  }

  start() {
    const body = new FormData();
    for (const file of this.files) body.append("files", file, file.name);
    this.request = new XMLHttpRequest();
    this.request.open("POST", form.action);
    this.request.setRequestHeader("Accept", "application/x-ndjson");
    this.request.upload.addEventListener("progress", (event) => this.showUpload(event));
    this.request.upload.addEventListener("load", () => this.uploaded());
    this.request.addEventListener("progress", () => this.readLines());
    this.request.addEventListener("load", () => this.end());
    this.request.addEventListener("error", () => this.fail("The connection was lost."));
    this.request.addEventListener("abort", () => this.fail("The upload was cancelled."));
    this.request.send(body);
  }

  showUpload(event) {
    if (!event.lengthComputable) return;
    byId("upload-bar").value = event.loaded / event.total;
    byId("upload-words").textContent = `${bytes(event.loaded)} of ${bytes(event.total)}`;
  }

  uploaded() {
    byId("upload-bar").value = 1;
    byId("cancel").hidden = true;
    this.sentAt = performance.now();
    this.showResults();
  }

  readLines() {
    if (!hasLines(this.request)) return;
    const text = this.request.responseText;
    const end = text.lastIndexOf("\n") + 1;
    for (const line of text.slice(this.read, end).split("\n")) {
      if (line) this.take(JSON.parse(line));
    }
    this.read = Math.max(this.read, end);
    this.showResults();
  }

  take(line) {
    if ("filename" in line) this.results.add(line);
    else if ("error" in line) this.problem = line.error.message;
    else this.last = line;
  }

  showResults() {
    const total = this.files.length;
    const done = this.results.done;
    byId("result-bar").value = done / total;
    const seconds = (performance.now() - (this.sentAt || performance.now())) / 1000;
    const rate = seconds > 0 ? done / seconds : 0;
    const parts = [`${count(done)} of ${count(total)}`];
    if (rate > 0) parts.push(`${rate.toFixed(1)} images/s`);
    if (rate > 0 && done < total) parts.push(`${duration((total - done) / rate)} left`);
    byId("result-words").textContent = parts.join(" · ");
    if (done < total) this.speak(`${count(done)} of ${count(total)} done`);
  }

  speak(words) {
    if (performance.now() - this.spokenAt < SPOKEN_EVERY_MS) return;
    this.spokenAt = performance.now();
    byId("spoken").textContent = words;
  }

  end() {
    if (!hasLines(this.request)) return this.fail(refusal(this.request));
    this.readLines();
    if (!this.last) return this.fail("The answer ended early.");
    const { summary, output_directory, batch } = this.last;
    byId("output").textContent = output_directory;
    byId("batch").textContent = batch;
    byId("batch").href = `/api/v1/batches/${batch}`;
    byId("saved").hidden = false;
    byId("spoken").textContent = `Done. ${this.results.words}.`;
    last = { results: this.results.inOrder, answer: { summary, output_directory, batch } };
    finish();
    this.results.show(); // before the focus moves: the next Tab is to find them
    if (this.single) showSingle(this.results.inOrder[0]);
    else if (document.activeElement === byId("progress-title")) byId("results-title").focus();
  }

  fail(words) {
    const done = this.results.done;
    const known = done ? ` ${images(done)} of ${count(this.files.length)} had a result.` : "";
    const safe = !this.problem && this.sentAt && this.request.status in { 0: 1, 200: 1 }
      ? " What was sent is safe and is filed; the live page shows it."
      : "";
    complain(`${this.problem || words}${known}${safe}`);
    if (done) last = { results: this.results.inOrder, answer: {} };
    finish();
  }
}

// Whatever the status: with 413 each line says why its file was not taken.
const hasLines = (request) =>
  (request.getResponseHeader("Content-Type") ?? "").startsWith("application/x-ndjson");

function refusal(request) {
  try {
    return JSON.parse(request.responseText).error.message;
  } catch {
    return `The service refused the upload (${request.status}).`;
  }
}

function submit(event) {
  event.preventDefault();
  if (run || !chosen.files.length) return;
  complain("");
  last = null;
  run = new Run(chosen.files.slice(), isSingle());
  busy(true);
  byId("upload-bar").value = byId("result-bar").value = 0;
  byId("upload-words").textContent = `0 of ${bytes(chosen.bytes)}`;
  byId("result-words").textContent = `0 of ${count(run.files.length)}`;
  byId("progress").hidden = byId("cancel").hidden = false;
  byId("results").hidden = run.single;
  byId("saved").hidden = true;
  byId("single").hidden = true;
  byId("single").replaceChildren();
  byId("progress-title").focus(); // the button that had the focus is disabled now
  run.start();
}

function finish() {
  run = null;
  busy(false);
  chosen.clear();
}

function busy(isBusy) {
  for (const element of form.elements) element.disabled = isBusy;
  byId("cancel").hidden = true;
  byId("save-csv").disabled = byId("save-json").disabled = isBusy || !last;
  byId("predict").disabled = isBusy || !chosen.files.length;
}

function complain(words) {
  byId("problem-words").textContent = words;
  byId("problem").hidden = !words;
}

// -- showing -------------------------------------------------------------------------------

async function showSingle(result) {
  if (result.index === null) return complain(`${result.error.code}: ${result.error.message}`);
  const answer = await fetch(`/images/${result.index}/result`);
  if (!answer.ok) return complain((await answer.json()).error.message);
  const link = document.createElement("a");
  link.href = `/images/${result.index}`;
  link.textContent = "Record and model";
  byId("single").className = "card";
  byId("single").replaceChildren(...parsed(await answer.text()), link);
  byId("single").hidden = false;
}

form.addEventListener("submit", submit);
for (const mode of form.elements.mode) mode.addEventListener("change", changeMode);
byId("select").addEventListener("click", () => byId("files").click());
byId("select-folder").addEventListener("click", () => byId("folder").click());
byId("files").addEventListener("change", (event) => choose(event.target));
byId("folder").addEventListener("change", (event) => choose(event.target));
byId("clear").addEventListener("click", () => {
  chosen.clear();
  byId("select").focus();
});
byId("cancel").addEventListener("click", () => run?.request.abort());
byId("save-csv").addEventListener("click", () =>
  save("results.csv", "text/csv;charset=utf-8", toCsv(last.results, notice)));
byId("save-json").addEventListener("click", () =>
  save("results.json", "application/json", toJson(last.results, last.answer, notice)));
byId("drop").addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("drop").classList.add("over");
});
byId("drop").addEventListener("dragleave", () => byId("drop").classList.remove("over"));
byId("drop").addEventListener("drop", drop);
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => event.preventDefault());
addEventListener("beforeunload", (event) => {
  if (run && !run.sentAt) event.preventDefault();
});
changeMode();
