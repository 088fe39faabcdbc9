// The batch page: choose files, send them in one request, show each result as it comes.

import { byId, bytes, count, duration, element, images, parsed, sayOfService } from "./common.js";
import { Chosen, droppedFiles } from "./files.js";
import { Results } from "./results.js";
import { save, toCsv, toJson } from "./saving.js";
import { Viewer } from "./viewer.js";

const SPOKEN_EVERY_MS = 6_000;
const ASK_AGAIN_MS = 4_000;
const ANSWER_MS = 15_000;

const form = byId("upload");
const chosen = new Chosen(form.dataset.suffixes.split(" "));
const notice = form.dataset.notice;
const isSingle = () => form.elements.mode.value === "single";
let run = null; // the request that is under way
let last = null; // the last batch that is over
let isAsking = false; // whether the service is asked if it would take images
let refusedTimer = 0; // while it would not

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
  byId("select").textContent = isSingle() ? "Select Image" : "Select Images";
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

// -- asking first --------------------------------------------------------------------------

// Why nothing would be taken, in a person's words and with a link; null when it would be.
async function obstacle() {
  const stay = `Your ${images(chosen.files.length)} stay chosen.`;
  let answer;
  try {
    const options = { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(ANSWER_MS) };
    answer = await fetch("/api/v1/status", options);
    if (answer.ok && (await answer.json()).alive) return null;
  } catch {
    sayOfService("Connection lost");
    return [`The server does not answer, so nothing was sent. ${stay} This page goes on asking.`];
  }
  if (answer.status === 401) {
    sayOfService("Signed out");
    return [`Your session has ended, so nothing was sent. ${stay} `, signInLink(), ", then come back here."];
  }
  if (!answer.ok) return [`${await refusal(answer)} Nothing was sent. ${stay}`];
  sayOfService("Service not running");
  return [`The service is not running, so nothing was sent. ${stay} This page says when it runs again.`];
}

function signInLink() {
  const link = element("a", "", "Sign in (opens beside)");
  link.href = "/login?next=/live";
  link.target = "_blank";
  return link;
}

// Is asked again from time to time, and when one comes back from the sign-in beside.
async function askAgain() {
  clearTimeout(refusedTimer);
  if (run || isAsking || !refusedTimer) return;
  isAsking = true;
  const words = await obstacle();
  isAsking = false;
  if (words) {
    refusedTimer = setTimeout(askAgain, ASK_AGAIN_MS);
    if (words.map(plain).join("") !== byId("problem-words").textContent) complain(...words);
    return;
  }
  refusedTimer = 0;
  complain();
  sayOfService("Service running again");
  byId("spoken-ready").textContent = `Ready again. ${images(chosen.files.length)} chosen: press Predict.`;
}

const plain = (part) => part.textContent ?? part;

// -- sending -------------------------------------------------------------------------------

class Run {
  constructor(files, single) {
    this.files = files;
    this.single = single;
    this.results = new Results();
    this.read = 0; // characters of the answer that are dealt with
    this.last = null; // its last line
    this.problem = ""; // why it broke off, in the service's own words
    this.isTaken = false; // the service answers with lines when it has all of them
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
    this.isTaken = true;
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
    if (!hasLines(this.request)) return this.refuse();
    this.readLines();
    if (!this.last) return this.fail("The answer ended early.");
    const { summary, output_directory, batch } = this.last;
    byId("output").textContent = output_directory;
    byId("batch").textContent = batch;
    byId("batch").href = `/api/v1/batches/${batch}`;
    byId("saved").hidden = false;
    byId("spoken").textContent = `Done. ${this.results.words}.`;
    last = { results: this.results.inOrder, answer: { summary, output_directory, batch } };
    finish(this.files.length);
    this.results.finish(); // before the focus moves: the next Tab is to find them
    if (this.single) showSingle(this.results.inOrder[0]);
    else if (document.activeElement === byId("progress-title")) byId("results-title").focus();
  }

  // Refused as a whole, or from some file on: those before it are filed.
  async refuse() {
    const taken = answerOf(this.request).accepted ?? 0;
    finish(taken);
    if (this.request.status === 401) return blocked(...(await obstacle() ?? ["Please press Predict again."]));
    complain(`${errorOf(this.request)} ${stays(taken)}`);
  }

  fail(words) {
    const done = this.results.done;
    const taken = this.isTaken ? this.files.length : 0;
    if (done) last = { results: this.results.inOrder, answer: {} };
    finish(taken);
    const known = done ? ` ${images(done)} of ${count(this.files.length)} had a result.` : "";
    const safe = this.problem ? "" : taken
      ? " What was sent is safe and is filed; the live page shows it."
      : ` What had arrived whole is filed, and the live page shows it. ${stays(0)}`;
    complain(`${this.problem || words}${known}${safe}`);
  }
}

const stays = (taken) =>
  chosen.files.length ? `${taken ? "The other" : "Your"} ${images(chosen.files.length)} stay chosen.` : "";

// Whatever the status: with 413 each line says why its file was not taken.
const hasLines = (request) =>
  (request.getResponseHeader("Content-Type") ?? "").startsWith("application/x-ndjson");

function answerOf(request) {
  try {
    return JSON.parse(request.responseText);
  } catch {
    return {};
  }
}

const errorOf = (request) =>
  answerOf(request).error?.message ?? `The service refused the upload (${request.status}).`;

const refusal = async (answer) =>
  errorOf({ responseText: await answer.text(), status: answer.status });

function blocked(...words) {
  complain(...words);
  refusedTimer = setTimeout(askAgain, ASK_AGAIN_MS);
}

async function submit(event) {
  event.preventDefault();
  if (run || isAsking || !chosen.files.length) return;
  isAsking = true;
  clearTimeout(refusedTimer);
  refusedTimer = 0;
  const words = await obstacle();
  isAsking = false;
  if (words) blocked(...words);
  else if (chosen.files.length) send();
}

function send() {
  complain();
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

// Only what was taken is cleared: the rest stays chosen for another try.
function finish(taken) {
  run = null;
  chosen.drop(taken, isSingle());
  busy(false);
}

function busy(isBusy) {
  for (const element of form.elements) element.disabled = isBusy;
  byId("cancel").hidden = true;
  byId("save-csv").disabled = byId("save-json").disabled = isBusy || !last;
  byId("predict").disabled = isBusy || !chosen.files.length;
}

function complain(...words) {
  byId("problem-words").replaceChildren(...words);
  byId("problem").hidden = !words.length;
  byId("spoken-ready").textContent = "";
  if (words.length) byId("problem").scrollIntoView({ block: "nearest" });
}

// -- showing -------------------------------------------------------------------------------

async function showSingle(result) {
  if (result.index === null) return complain(`${result.error.code}: ${result.error.message}`);
  const answer = await fetch(`/images/${result.index}/result`);
  if (!answer.ok) return complain((await answer.json()).error.message);
  const link = element("a", "", "Record and model");
  link.href = `/images/${result.index}`;
  byId("single").className = "card";
  byId("single").replaceChildren(...parsed(await answer.text()), link);
  byId("single").hidden = false;
  Viewer.start(byId("single"));
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
byId("drop").addEventListener("focus", askAgain);
addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("drop").classList.add("over");
});
byId("drop").addEventListener("dragleave", () => byId("drop").classList.remove("over"));
byId("drop").addEventListener("drop", drop);
addEventListener("focus", askAgain);
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => event.preventDefault());
addEventListener("beforeunload", (event) => {
  if ((run && !run.sentAt) || (refusedTimer && chosen.files.length)) event.preventDefault();
});
changeMode();
