// The picture of one image: fit or 1:1 in its place, larger and smaller, inverted; by buttons, wheel,
// keys and dragging. Left and right lead to the previous and the next image.

const STEP = 1.25;
const LARGEST = 8;

export class Viewer {
  static start(root) {
    const tools = root.querySelector(".film .tools");
    if (tools) new Viewer(root.querySelector(".viewer"), tools);
  }

  constructor(frame, tools) {
    this.frame = frame;
    this.image = frame.querySelector("img");
    this.tools = tools;
    this.scale = 0; // screen pixels for one of the picture; 0 fits it into its frame
    this.isInverted = false;
    this.actions = {
      fit: () => this.zoom(0),
      full: () => this.zoom(1),
      in: () => this.zoom(this.shown * STEP),
      out: () => this.zoom(this.shown / STEP),
      invert: () => this.invert(),
    };
    this.keys = { 0: "fit", 1: "full", "+": "in", "=": "in", "-": "out", i: "invert" };
    frame.tabIndex = 0;
    frame.setAttribute("role", "group");
    frame.setAttribute("aria-label", "The X-ray, with keys: + larger, - smaller, 0 fit, 1 full size, i invert");
    tools.hidden = false;
    const keys = frame.parentElement.querySelector(".keys");
    if (keys) keys.hidden = false;
    tools.addEventListener("click", (event) => this.act(event.target.closest("button")?.dataset.do));
    frame.parentElement.addEventListener("keydown", (event) => this.press(event));
    frame.addEventListener("wheel", (event) => this.turn(event), { passive: false });
    frame.addEventListener("pointerdown", (event) => this.drag(event));
    this.image.addEventListener("load", () => this.say());
    this.say();
  }

  get fitting() {
    const { naturalWidth: width, naturalHeight: height } = this.image;
    return Math.min(this.frame.clientWidth / width, this.frame.clientHeight / height);
  }

  get shown() {
    return this.scale || this.fitting;
  }

  // Where the picture itself is on the screen, without what its box has around it.
  get content() {
    const box = this.image.getBoundingClientRect();
    const width = this.image.naturalWidth * this.shown;
    const height = this.image.naturalHeight * this.shown;
    return { x: box.x + (box.width - width) / 2, y: box.y + (box.height - height) / 2, width, height };
  }

  act(name) {
    this.actions[name]?.();
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in this.keys)) return;
    event.preventDefault();
    this.act(this.keys[event.key]);
  }

  // Where the picture fits already, a turn that makes it smaller scrolls the page, as everywhere.
  turn(event) {
    if (event.deltaY > 0 && !this.scale) return;
    event.preventDefault();
    this.zoom(this.shown * (event.deltaY < 0 ? STEP : 1 / STEP), event.clientX, event.clientY);
  }

  // The point under the pointer, or the middle, stays where it is.
  zoom(scale, clientX, clientY) {
    const box = this.frame.getBoundingClientRect();
    const [x, y] = [(clientX ?? box.x + box.width / 2) - box.x, (clientY ?? box.y + box.height / 2) - box.y];
    const before = this.content;
    const [shareX, shareY] = [(box.x + x - before.x) / before.width, (box.y + y - before.y) / before.height];
    this.frame.style.height = `${box.height}px`; // the page does not jump
    this.scale = scale <= this.fitting * 1.001 && scale !== 1 ? 0 : Math.min(scale, LARGEST);
    this.frame.classList.toggle("zoomed", this.scale > 0);
    this.image.style.width = this.scale ? `${this.image.naturalWidth * this.scale}px` : "";
    if (!this.scale) this.frame.style.height = "";
    const after = this.content;
    this.frame.scrollLeft += after.x + shareX * after.width - box.x - x;
    this.frame.scrollTop += after.y + shareY * after.height - box.y - y;
    this.say();
  }

  invert() {
    this.isInverted = !this.isInverted;
    this.image.classList.toggle("inverted", this.isInverted);
    this.say();
  }

  say() {
    const pressed = { fit: !this.scale, full: this.scale === 1, invert: this.isInverted };
    for (const [name, isPressed] of Object.entries(pressed)) {
      this.tools.querySelector(`[data-do="${name}"]`).setAttribute("aria-pressed", isPressed);
    }
    if (!this.image.naturalWidth) return;
    const words = `${Math.round(100 * this.shown)} %${this.isInverted ? ", inverted" : ""}`;
    this.tools.querySelector(".zoom").textContent = words;
  }

  // A mouse drags; a finger scrolls the frame by itself. A click without a drag changes the size.
  drag(start) {
    if (start.button !== 0) return;
    let isMoved = false;
    const move = (event) => {
      isMoved ||= Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) > 4;
      if (!isMoved || start.pointerType !== "mouse") return;
      this.frame.scrollLeft -= event.movementX;
      this.frame.scrollTop -= event.movementY;
    };
    const end = (event) => {
      for (const [name, listener] of Object.entries(listeners)) removeEventListener(name, listener);
      if (event.type === "pointerup" && !isMoved) {
        this.zoom(this.scale ? 0 : Math.max(1, this.fitting * 2), start.clientX, start.clientY);
      }
    };
    const listeners = { pointermove: move, pointerup: end, pointercancel: end };
    for (const [name, listener] of Object.entries(listeners)) addEventListener(name, listener);
  }
}

// Left and right, unless they move something else: a text, or a picture that is larger than its frame.
function follow(event) {
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  if (!rel || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  if (event.target.closest?.("input, select, textarea, .viewer.zoomed")) return;
  const link = document.querySelector(`a[rel="${rel}"]`);
  if (!link) return;
  event.preventDefault();
  // Whoever has the focus on the picture finds it there again.
  location.href = link.href + (event.target.closest?.(".film") ? "#viewer" : "");
}

if (document.querySelector('nav[aria-label="Images"]')) {
  Viewer.start(document);
  document.addEventListener("keydown", follow);
  if (location.hash === "#viewer") document.getElementById("viewer")?.focus();
}
