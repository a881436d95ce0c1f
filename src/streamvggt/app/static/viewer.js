// Controls and images around the cloud. All settings of the view apply in the browser, without a request. Requests
// fetch the other point source, the depth map of a frame, and downloads.

import { sendFrames } from "./camera.js";
import { Cloud, trackColor } from "./cloud.js";
import { gridStep } from "./mesh.js";
import { record, save } from "./recording.js";
import { UpdateStream } from "./updates.js";

const RECENT = 8; // frames of the choice "last 8 frames"
const TRACK_LENGTH = 12; // frames of a track in the image
const PLAY_INTERVAL = 120; // milliseconds
const WAITING = "Waiting for the model …";

const ui = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
const on = (ids, type, act) => ids.split(" ").forEach((id) => ui[id].addEventListener(type, act));
const cloud = new Cloud(ui.scene);
const feed = new UpdateStream({ onStatus, onFrame, onFrames, onRun, onError });
const outside = window.parent === window ? null : window.parent.document; // the page around the viewer
let position = 0;
let followLatest = true; // show the newest frame until the user selects another
let measuredPoints = [];
let pixels = {}; // depth, confidence and marks of the frame under the cursor
let camera = null; // sends images while the server wants them
let playing = null;
window.viewer = { cloud, feed, expectRun, showTracker }; // for the page around it, and for tests

// Updates

function onRun() {
  [position, followLatest, measuredPoints] = [0, true, []];
  cloud.frames.forEach(({ picture }) => URL.revokeObjectURL(picture));
  cloud.clear();
  ui.preview.hidden = ui.reading.hidden = true;
  ui.source.value = feed.source = "depth";
}

function onFrame(packet) {
  if (packet.position < cloud.frames.length) return cloud.setPoints(packet.position, packet);
  cloud.add({ ...packet, picture: URL.createObjectURL(new Blob([packet.picture], { type: "image/jpeg" })) });
}

function onFrames() {
  ui.position.max = cloud.frames.length - 1;
  showFrameAt(followLatest ? cloud.frames.length - 1 : position);
}

function onStatus(news, before) {
  const isNew = news.state !== before.state || news.run !== before.run;
  ui.stop.hidden = ui.progress.hidden = !feed.isActive;
  ui.stop.disabled = false;
  if (news.expected && news.num_frames) ui.progress.value = Math.min(news.num_frames / news.expected, 1);
  else ui.progress.removeAttribute("value");
  showState(news);
  ui.downloads.disabled = !news.num_frames;
  ui.source.querySelector("[value=head]").disabled = !news.sources.includes("head");
  ui["choose-points"].hidden = !outside || news.kind === "live" || feed.isActive || !news.num_frames;
  if (isNew && news.state === "ready" && outside && news.kind !== "live") showPreview();
  if (news.is_fed && feed.isActive) camera ??= sendCameraFrames().finally(() => (camera = null));
}

function showState({ text, message, state, run }) {
  ui.state.textContent = feed.isActive || feed.wantedRun <= run ? text : WAITING;
  showMessage(message, state === "failed");
}

async function sendCameraFrames() {
  const stream = window.parent.page?.cameraStream;
  if (stream) await sendFrames(stream, () => feed.isActive);
  if (!stream?.active) post("stop");
}

function onError(text) {
  ui.state.textContent = text;
  ui.stop.hidden = ui.progress.hidden = true;
}

function showMessage(text, isAlarm) {
  ui.message.hidden = !text;
  ui.message.textContent = `${isAlarm ? "Failed: " : ""}${text}`;
  ui.message.classList.toggle("alarm", isAlarm);
}

/** Send a request that changes something. Returns the response, or null after an error message. */
async function post(route, content) {
  const response = await fetch(route, { method: "POST", body: content && JSON.stringify(content) });
  if (response.ok) return response;
  showMessage(await response.text(), true);
  return null;
}

/** The page around the viewer starts a run. */
function expectRun() {
  feed.expectRun();
  ui.state.textContent = WAITING;
}

on("stop", "click", () => {
  ui.stop.disabled = true;
  post("stop");
});

// The frame shown

function showFrameAt(where) {
  position = Math.max(0, Math.min(where, cloud.frames.length - 1));
  followLatest = position === cloud.frames.length - 1;
  applySettings();
  const frame = cloud.frames[position];
  if (!frame) return;
  if (ui.follow.checked) cloud.flyTo(position);
  const [height, width] = frame.image_size;
  ui.position.value = position;
  const time = frame.time === null ? "" : ` · ${frame.time.toFixed(2)} s`;
  ui.which.textContent = `${position + 1} / ${cloud.frames.length}${time}`;
  ui.which.title = frame.name;
  ui.pose.textContent = frame.pose;
  ui.pictures.style.setProperty("--ratio", width / height);
  for (const image of ui.pictures.querySelectorAll("img")) image.src = frame.picture; // each shows its third
  ui["image-tracks"].setAttribute("viewBox", `0 0 ${width} ${height}`);
  ui["image-tracks"].innerHTML = ui.tracks.checked ? trackShapes(frame, width / 40).join("") : "";
}

/** SVG of the tracked points in the image, each with its path in the last frames. Hidden points are rings. */
function trackShapes({ tracks }, radius) {
  const before = cloud.frames.slice(Math.max(position - TRACK_LENGTH, 0), position + 1);
  return tracks.map(([x, y, visible], number) => {
    const path = before.map((frame) => frame.tracks[number].slice(0, 2).join()).join(" ");
    const fill = visible > 0.5 ? trackColor(number) : "none";
    const shapes = `<polyline points="${path}" /><circle cx="${x}" cy="${y}" r="${radius}" fill="${fill}" />`;
    return `<g stroke="${trackColor(number)}">${shapes}</g>`;
  });
}

on("position", "input", () => showFrameAt(ui.position.valueAsNumber));
on("play", "click", () => {
  clearInterval(playing);
  playing = playing ? null : setInterval(() => showFrameAt((position + 1) % cloud.frames.length), PLAY_INTERVAL);
  ui.play.textContent = playing ? "❚❚" : "▶";
  ui.play.setAttribute("aria-label", playing ? "Pause" : "Play");
});

// Settings of the view

function settings() {
  const first = { all: 0, past: 0, recent: Math.max(position - RECENT + 1, 0), one: position }[ui.span.value];
  return {
    position,
    range: [first, ui.span.value === "all" ? cloud.frames.length - 1 : position],
    surface: ui.surface.value,
    percentile: ui.percentile.valueAsNumber,
    hidden: [...ui.hide.querySelectorAll(":checked")].reduce((marks, box) => marks | box.value, 0),
    size: ui.size.valueAsNumber,
    maxPoints: 1000 * ui["max-points"].valueAsNumber,
    cameras: ui.cameras.checked,
    cameraSize: ui["camera-size"].valueAsNumber / 100,
    tracks: ui.tracks.checked,
    background: ui.backdrop.value || getComputedStyle(ui.stage).backgroundColor,
  };
}

function applySettings() {
  for (const slider of ui.controls.querySelectorAll("[type=range]")) {
    slider.labels[0].querySelector("output").value = slider.value + (slider.dataset.unit ?? "");
  }
  cloud.show(settings());
  showMeshes();
}

/** Add the meshes of the view, if selected. Their depth maps are fetched. */
async function showMeshes() {
  for (const frame of cloud.updateMeshes()) {
    const step = gridStep(frame.image_size[1]);
    const values = await fetchDepth(frame, step);
    if (values && cloud.updateMeshes().includes(frame)) cloud.addMesh(frame, values, step);
  }
}

on("controls", "input", ({ target }) => {
  if (target === ui.source) feed.setSource(ui.source.value);
  showFrameAt(position);
});
on("views", "click", ({ target }) => {
  if (!target.dataset.view) return;
  ui.follow.checked = false;
  cloud.setView(target.dataset.view);
});
on("follow", "input", () => ui.follow.checked && cloud.flyTo(position));
on("large", "click", () => (document.fullscreenElement ? document.exitFullscreen() : ui.stage.requestFullscreen()));
cloud.controls.addEventListener("start", () => {
  ui.follow.checked = cloud.controls.autoRotate = false;
  cloud.goal = null;
});

// Measuring

function read(text) {
  ui.reading.hidden = !text;
  ui.reading.textContent = text;
}

const number = (value) => Number(value.toPrecision(4)).toString();

let pressed = null;
on("scene", "pointerdown", (event) => (pressed = [event.clientX, event.clientY]));
on("scene", "pointerup", (event) => {
  const slack = event.pointerType === "touch" ? 12 : 4; // pixels that a click or tap may move
  if (!pressed || Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > slack) return;
  const { left, top } = ui.scene.getBoundingClientRect();
  const found = cloud.pick(event.clientX - left, event.clientY - top);
  if (!found || measuredPoints.length === 2) measuredPoints = [];
  if (found) measuredPoints.push(found.world);
  cloud.mark(measuredPoints);
  if (!found) return read("");
  const [a, b] = measuredPoints;
  const apart = b ? ` · ${number(a.distanceTo(b))} from the first point` : "";
  const where = `depth ${number(found.depth)} in frame ${found.frame.position + 1} · confidence ${number(found.conf)}`;
  read(`(${found.world.toArray().map(number).join(", ")}) · ${where}${apart}`);
});

/** Depth, then confidence, then marks (packet.py), of every `step`-th pixel. Null if a new run has deleted them. */
async function fetchDepth(frame, step = 1) {
  const response = await fetch(`depth/${frame.position}?step=${step}`);
  return response.ok ? new Float32Array(await response.arrayBuffer()) : null;
}

async function readPixel(event) {
  const frame = cloud.frames[position];
  if (!frame) return;
  const box = event.target.getBoundingClientRect();
  const [height, width] = frame.image_size;
  const x = Math.floor(((event.clientX - box.left) / box.width) * width);
  const y = Math.floor(((event.clientY - box.top) / box.height) * height);
  if (pixels.frame !== frame) pixels = { frame, values: fetchDepth(frame) };
  const values = await pixels.values;
  const [depth, conf] = [values?.[y * width + x], values?.[(height + y) * width + x]];
  read(`Pixel (${x}, ${y}) · ${depth > 0 ? `depth ${number(depth)} · confidence ${number(conf)}` : "no depth"}`);
}

on("image depth confidence", "pointermove", readPixel);
on("image depth confidence", "click", readPixel); // a tap moves nothing
on("image depth confidence", "pointerleave", (event) => event.pointerType === "mouse" && read(""));

// The input: photos, and points to track

function showPreview() {
  ui["first-image"].src = `preview?${feed.status.photos[0]?.[0]}`;
  ui.preview.hidden = false;
  ui.photos.hidden = feed.status.photos.length < 2;
  ui.photos.replaceChildren(...feed.status.photos.map(([key, name]) => {
    const photo = ui["photo-template"].content.cloneNode(true);
    Object.assign(photo.querySelector("img"), { src: `photo/${key}`, alt: name, title: name });
    photo.querySelector("button").title = `Remove ${name}`;
    photo.querySelector("button").addEventListener("click", () => change("photos", `photo/${key}/remove`, showPreview));
    return photo;
  }));
  showTracker();
}

/** Change a part of the input. The server returns its new value. */
async function change(part, route, show, content) {
  const response = await post(route, content);
  if (!response) return;
  feed.status[part] = await response.json();
  show();
}

/** What the page says of the tracker of the selected weights: `tracker` ("true", "false" or "null") and a `hint`. */
const tracking = () => outside?.querySelector("#about [data-tracker]")?.dataset ?? {};

/** Offer tracking if the selected weights have a tracker. */
function showTracker() {
  const hasNone = tracking().tracker === "false";
  ui.tracking.textContent = tracking().hint ?? "";
  ui.first.classList.toggle("inert", hasNone);
  const dots = (hasNone ? [] : feed.status.queries).map(
    ([x, y], index) => `<circle cx="${100 * x}%" cy="${100 * y}%" r="6" fill="${trackColor(index)}" />`,
  );
  ui["query-points"].innerHTML = dots.join("");
  ui["clear-points"].hidden = dots.length === 0;
}

on("first", "click", (event) => {
  if (tracking().tracker === "false") return;
  const box = ui["first-image"].getBoundingClientRect();
  const point = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  const isFar = ([x, y]) => Math.hypot((x - point[0]) * box.width, (y - point[1]) * box.height) >= 10;
  const others = feed.status.queries.filter(isFar); // a click on a point removes it
  change("queries", "queries", showTracker, others.length < feed.status.queries.length ? others : [...others, point]);
});
on("clear-points", "click", () => change("queries", "queries", showTracker, []));
on("choose-points", "click", () => (ui.preview.hidden ? showPreview() : (ui.preview.hidden = true)));

// Downloads

async function exported(kind) {
  const { percentile, range: frames } = settings();
  const flags = Object.fromEntries([...ui.hide.querySelectorAll("input")].map((box) => [box.name, box.checked]));
  const response = await post(`export/${kind}`, { source: feed.source, conf_percentile: percentile, frames, ...flags });
  const name = response?.headers.get("content-disposition").match(/filename="([^"]+)"/)[1];
  return response && [await response.blob(), name];
}

async function screenshot() {
  cloud.render(1); // the canvas is empty after its image was shown
  return [await new Promise((done) => ui.scene.toBlob(done)), "screenshot.png"];
}

const DOWNLOADS = { screenshot, "fly-through": () => record(cloud) };

on("downloads", "click", async ({ target }) => {
  const { kind } = target.dataset;
  if (!kind || target.disabled) return;
  target.disabled = true;
  showState(feed.status);
  ui.state.textContent = `Creating ${target.textContent} …`; // in the bar, so that the view keeps its size
  const file = await (DOWNLOADS[kind] ?? exported)(kind).catch((error) => showMessage(error.message, true));
  ui.state.textContent = feed.status.text;
  if (file) save(...file);
  target.disabled = false;
});

// Theme and size

function applyTheme() {
  const isDark = outside ? outside.body.classList.contains("dark") : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  applySettings();
}

/** On a phone the frame has the height of its content. */
function fit() {
  window.frameElement.style.height = innerWidth <= 700 ? `${document.body.scrollHeight + 4}px` : "";
}

document.body.classList.toggle("alone", !outside);
ui.large.hidden = !document.fullscreenEnabled; // iPhones
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
if (outside) new MutationObserver(applyTheme).observe(outside.body, { attributeFilter: ["class"] });
if (outside) new ResizeObserver(fit).observe(document.body);
if (location.search.includes("expect-run")) feed.wantedRun = 1; // it begins without a click
if (location.search.includes("keep-edges")) ui.dropEdges.checked = false;
applyTheme();
feed.follow();
