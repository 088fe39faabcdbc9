// The live page: the server sends the parts that have changed, rendered; they are put in place.

import { byId, parsed, sayOfService } from "./common.js";

const latest = byId("latest");
const link = byId("link");

function showImage(event) {
  const { index, level, words, html } = JSON.parse(event.data);
  latest.dataset.last = index;
  if (latest.querySelector(`[data-index="${Number(index)}"]`)) return;
  latest.prepend(...parsed(html));
  while (latest.children.length > Number(latest.dataset.shown)) latest.lastElementChild.remove();
  byId("no-images").hidden = true;
  if (level === "High") byId("spoken").textContent = words; // the others are not worth a voice
}

const markup = (elements) => Array.from(elements, (element) => element.outerHTML).join("");

function showRegion(event) {
  const { name, html } = JSON.parse(event.data);
  const region = document.querySelector(`[data-region="${name}"]`);
  const fresh = [...parsed(html)];
  if (markup(fresh) === markup(region.children)) return; // or a voice would say again what it was
  const focused = region.contains(document.activeElement) ? document.activeElement.id : "";
  const isOpen = region.querySelector("details")?.open;
  region.replaceChildren(...fresh);
  if (isOpen) region.querySelector("details")?.setAttribute("open", "");
  if (focused) byId(focused)?.focus();
}

function showLost() {
  link.textContent = "Connection lost; trying again";
  sayOfService("Connection lost");
}

function askToSignIn() {
  const again = document.createElement("a");
  again.href = `/login?next=${location.pathname}`;
  again.textContent = "sign in again";
  link.replaceChildren("You are signed out: ", again);
}

// An EventSource does not tell why it was refused: the page itself is asked.
async function connectAgain() {
  const answer = await fetch(location.pathname, { method: "HEAD" }).catch(() => null);
  if (answer?.status === 401) askToSignIn();
  else setTimeout(connect, 5_000);
}

function connect() {
  const source = new EventSource(`/live/events?after=${latest.dataset.last}`);
  source.addEventListener("open", () => { link.textContent = "Updates by itself"; });
  source.addEventListener("image", showImage);
  source.addEventListener("region", showRegion);
  source.addEventListener("error", () => {
    showLost();
    if (source.readyState === EventSource.CLOSED) connectAgain();
  });
}

connect();
