// Controls and images around the cloud. All settings of the view apply in the browser, without a request. Requests fetch
// the other point source, the depth map of a frame, and downloads.

import { sendFrames } from "./camera.js";
import { Cloud, MAX_SCENE_POINTS, trackColor } from "./cloud.js";
import { record, save } from "./recording.js";
import { gridStep, meshPositions } from "./surface.js";
import { UpdateStream, errorText } from "./updates.js";

const RECENT = 8; // frames of the choice "last 8 frames"
const TRACK_LENGTH = 12; // frames of a track in the image
const PIXEL_RATIO = 2; // canvas pixels per image pixel, for the lines on the images
const PLAY_INTERVAL = 120; // milliseconds
const DEPTHS_KEPT = 6;
const WAITING = "Waiting for the model …";
const FILTERS = ["dropEdges", "dropSky", "dropWhite", "dropBlack"];

const byId = (id) => document.getElementById(id);
const on = (ids, type, act) => ids.split(" ").forEach((id) => byId(id).addEventListener(type, act));
const value = (id) => Number(byId(id).value);
const isChecked = (id) => byId(id).checked;
const cloud = new Cloud(byId("scene"));
const isStandalone = window.parent === window; // without a page around it
const outside = isStandalone ? null : window.parent.document;
document.body.classList.toggle("alone", isStandalone);
let frames = []; // the images and cameras of the packets
let status = { state: "", run: 0, num_frames: 0, sources: ["depth"], queries: [], photos: [], kind: "images" };
let position = 0;
let followLatest = true; // show the newest frame until the user selects another
let measuredPoints = [];
let isSizeChosen = false;
let isCameraOn = false;
const depths = new Map(); // of the latest frames, by position

const feed = new UpdateStream({ onStatus, onFrame, onFrames, onRun, onError });
const query = new URLSearchParams(location.search);
if (query.has("expect-run")) feed.wantedRun = 1; // it begins without a click
if (query.has("keep-edges")) byId("dropEdges").checked = false;
window.addEventListener("message", (event) => {
  if (event.origin !== location.origin) return;
  if (event.data === "weights") showTracker();
  if (event.data === "run-over") feed.stopExpecting();
  if (event.data !== "expect-run") return;
  feed.expectRun();
  byId("state").textContent = WAITING;
});
window.viewer = { cloud, feed }; // for tests

// Updates

function onRun() {
  frames = [];
  depths.clear();
  [position, followLatest, measuredPoints] = [0, true, []];
  cloud.clear();
  cloud.mark([]);
  byId("preview").hidden = byId("reading").hidden = true;
  byId("source").value = feed.source = "depth";
}

function onFrame(packet) {
  if (packet.position < frames.length) return cloud.replacePoints(packet.position, packet);
  frames.push({ ...packet, points: null, colors: null, conf: null });
  cloud.add(packet);
  if (frames.length > 1 || isSizeChosen) return;
  byId("size").value = cloud.autoPointSize();
  cloud.setPointSize(value("size"));
}

async function onFrames() {
  byId("position").max = frames.length - 1;
  if (followLatest) position = frames.length - 1;
  applyFilters();
  if (isChecked("follow")) cloud.flyTo(position);
  await showFrame();
}

function onStatus(news) {
  const isNew = news.state !== status.state || news.run !== status.run;
  status = news;
  const isActive = ["loading", "running"].includes(news.state);
  byId("stop").hidden = byId("progress").hidden = !isActive;
  byId("stop").disabled = false;
  if (news.expected && news.num_frames) byId("progress").value = Math.min(news.num_frames / news.expected, 1);
  else byId("progress").removeAttribute("value");
  byId("state").textContent = statusText(news);
  showMessage(news.message, news.state === "failed");
  byId("downloads").disabled = !news.num_frames;
  byId("source").querySelector("[value=head]").disabled = !news.sources.includes("head");
  byId("choose-points").hidden = isStandalone || news.kind === "live" || isActive || !news.num_frames;
  if (isNew && news.state === "ready" && !isStandalone && news.kind !== "live") showPreview();
  if (news.is_fed && isActive && !isCameraOn) sendCameraFrames();
  fit();
}

async function sendCameraFrames() {
  isCameraOn = true;
  const stream = window.parent.page?.cameraStream;
  if (stream) await sendFrames(stream, () => ["loading", "running"].includes(status.state));
  if (!stream?.active) post("stop");
  isCameraOn = false;
}

function statusText({ state, num_frames, expected, fps, seconds_left, memory_mb, weights, kind }) {
  const count = `${num_frames} ${num_frames === 1 ? "frame" : "frames"}`;
  const speed = fps ? ` · ${fps.toFixed(fps < 1 ? 2 : 1)} frames/s` : "";
  if (state === "loading") return `Loading the weights ${weights} and the first frame …`;
  if (feed.wantedRun > status.run) return WAITING;
  if (state === "ready") return kind === "live" ? "Waiting for the camera …" : "Ready. Press Start.";
  if (state === "running") {
    const left = seconds_left > 0.5 ? ` · ${duration(seconds_left)} left` : "";
    return `Frame ${num_frames}${expected ? ` of ${expected}` : ""}${speed}${left} · memory ${Math.round(memory_mb)} MB · ${weights}`;
  }
  if (state === "failed") return num_frames ? `Failed. The viewer shows the finished ${count}.` : "Failed.";
  return `${state === "stopped" ? "Stopped" : "Done"}: ${count}${speed} · ${weights}`;
}

const duration = (seconds) =>
  seconds < 90 ? `${Math.round(seconds)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;

function onError(text, isFinal) {
  byId("state").textContent = text;
  byId("state").dataset.gone = isFinal;
  byId("stop").hidden = byId("progress").hidden = true;
}

function showMessage(text, isAlarm) {
  byId("message").hidden = !text;
  byId("message").textContent = `${isAlarm ? "Failed: " : ""}${text}`;
  byId("message").classList.toggle("alarm", isAlarm);
}

/** Send a request that changes something. Returns the response, or null after an error message. */
async function post(route, content) {
  const response = await fetch(route, { method: "POST", body: content && JSON.stringify(content) });
  if (response.ok) return response;
  showMessage(await errorText(response), true);
  return null;
}

// The frame shown

async function showFrame() {
  const frame = frames[position];
  if (!frame) return;
  byId("position").value = position;
  byId("which").textContent = `${position + 1} / ${frames.length}${frame.time === null ? "" : ` · ${frame.time.toFixed(2)} s`}`;
  byId("which").title = frame.name;
  const center = cloud.frames[position].pose.center.map((coordinate) => coordinate.toFixed(3)).join(", ");
  const fov = (2 * Math.atan(frame.image_size[1] / 2 / frame.intrinsics[0]) * 180) / Math.PI;
  byId("pose").textContent =
    `Camera at (${center}), field of view ${fov.toFixed(0)}°. Point at the images or click in the scene to measure.`;
  drawCameras();
  const shown = position;
  const bitmap = await createImageBitmap(frame.picture);
  if (shown !== position) return;
  const width = bitmap.width / 3;
  ["image", "depth", "confidence"].forEach((name, index) => {
    const canvas = byId(name);
    [canvas.width, canvas.height] = [PIXEL_RATIO * width, PIXEL_RATIO * bitmap.height];
    const source = [index * width, 0, width, bitmap.height];
    canvas.getContext("2d").drawImage(bitmap, ...source, 0, 0, canvas.width, canvas.height);
  });
  if (isChecked("tracks")) drawTracks(byId("image").getContext("2d"), (PIXEL_RATIO * width) / frame.image_size[1]);
  fit();
}

function drawTracks(pen, scale) {
  pen.lineWidth = 2.5;
  frames[position].tracks.forEach(([x, y, visible], number) => {
    pen.strokeStyle = pen.fillStyle = css(trackColor(number));
    pen.beginPath();
    for (const { tracks } of frames.slice(Math.max(position - TRACK_LENGTH, 0), position + 1)) {
      pen.lineTo(tracks[number][0] * scale, tracks[number][1] * scale);
    }
    pen.stroke();
    pen.beginPath();
    pen.arc(x * scale, y * scale, 7, 0, 7);
    pen[visible > 0.5 ? "fill" : "stroke"]();
  });
}

const css = (color) => `rgb(${color.map((channel) => channel * 255).join()})`;

function drawCameras() {
  const size = value("camera-size") / 100;
  cloud.showCameras({ cameras: isChecked("cameras"), tracks: isChecked("tracks"), position, size });
}

function showFrameAt(where) {
  position = Math.max(0, Math.min(where, frames.length - 1));
  followLatest = position === frames.length - 1;
  showFrame();
  applyFilters();
  if (isChecked("follow")) cloud.flyTo(position);
}

on("position", "input", () => showFrameAt(value("position")));
let playing = null;
on("play", "click", () => {
  clearInterval(playing);
  playing = playing ? null : setInterval(() => showFrameAt((position + 1) % frames.length), PLAY_INTERVAL);
  byId("play").textContent = playing ? "❚❚" : "▶";
  byId("play").setAttribute("aria-label", playing ? "Pause" : "Play");
});

// Settings of the view

function range() {
  const last = frames.length - 1;
  const start = { all: 0, past: 0, recent: Math.max(position - RECENT + 1, 0), one: position }[byId("span").value];
  return [start, byId("span").value === "all" ? last : position];
}

function filters() {
  const flags = Object.fromEntries(FILTERS.map((name) => [name, isChecked(name)]));
  return { ...flags, percentile: value("percentile"), range: range() };
}

function applyFilters() {
  const shown = { percentile: "%", size: "", "camera-size": "%", "max-points": "k" };
  for (const id in shown) document.querySelector(`[for=${id}]`).textContent = `${byId(id).value} ${shown[id]}`;
  cloud.filter(filters());
  showSurface();
}

/** Show points, or the depth maps as meshes. Missing depth maps are fetched. */
async function showSurface() {
  const mode = byId("surface").value;
  cloud.pointGroup.visible = mode === "points";
  const wanted = mode === "points" ? [] : meshPositions(range());
  cloud.surface.show(wanted, mode === "normals");
  cloud.draw();
  for (const at of wanted) {
    if (cloud.surface.meshes.has(at) || !frames[at]) continue;
    const step = gridStep(frames[at].image_size[1]);
    const [values, bitmap] = await Promise.all([fetchDepth(at, step), createImageBitmap(frames[at].picture)]);
    if (byId("surface").value !== mode || !values || !meshPositions(range()).includes(at)) return;
    cloud.surface.add(at, cloud.frames[at], values, step, bitmap);
    cloud.surface.show(wanted, mode === "normals");
    cloud.draw();
  }
}

on("percentile span surface dropEdges dropSky dropWhite dropBlack", "input", applyFilters);
on("size", "input", () => {
  isSizeChosen = true;
  cloud.setPointSize(value("size"));
  applyFilters();
});
on("max-points", "input", () => {
  cloud.setMaxPoints(1000 * value("max-points"));
  applyFilters();
});
on("cameras camera-size", "input", () => (drawCameras(), applyFilters()));
on("tracks", "input", showFrame);
on("source", "input", () => feed.setSource(byId("source").value));
on("backdrop", "input", applyTheme);
on("views", "click", ({ target }) => {
  if (!target.dataset.view) return;
  byId("follow").checked = false;
  cloud.setView(target.dataset.view);
});
on("follow", "input", () => isChecked("follow") && cloud.flyTo(position));
cloud.onGrab = () => {
  byId("follow").checked = cloud.controls.autoRotate = false;
  cloud.goal = null;
};
on("large", "click", () => (document.fullscreenElement ? document.exitFullscreen() : byId("stage").requestFullscreen()));
on("stop", "click", () => {
  byId("stop").disabled = true;
  post("stop");
});

// Measuring

function read(text) {
  byId("reading").hidden = !text;
  byId("reading").textContent = text;
}

const number = (value) => Number(value.toPrecision(4)).toString();

let pressed = null;
on("scene", "pointerdown", (event) => (pressed = [event.clientX, event.clientY]));
on("scene", "pointerup", (event) => {
  const slack = event.pointerType === "touch" ? 12 : 4; // pixels that a click or tap may move
  if (!pressed || Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > slack) return;
  const { left, top } = byId("scene").getBoundingClientRect();
  const found = cloud.pick(event.clientX - left, event.clientY - top);
  if (!found || measuredPoints.length === 2) measuredPoints = [];
  if (found) measuredPoints.push(found.world);
  cloud.mark(measuredPoints);
  if (!found) return read("");
  const depth = number(cloud.depthFrom(found.position, found.world));
  const [a, b] = measuredPoints;
  const apart = b ? ` · ${number(Math.hypot(...a.map((coordinate, i) => coordinate - b[i])))} from the first point` : "";
  const where = `depth ${depth} in frame ${found.position + 1} · confidence ${number(found.conf)}`;
  read(`(${found.world.map(number).join(", ")}) · ${where}${apart}`);
});

/** Depth, then confidence, of every `step`-th pixel. */
async function fetchDepth(at, step = 1) {
  const response = await fetch(`depth/${at}?step=${step}`);
  return response.ok ? new Float32Array(await response.arrayBuffer()) : null;
}

function depthMap(at) {
  if (!depths.has(at)) depths.set(at, fetchDepth(at));
  if (depths.size > DEPTHS_KEPT) depths.delete(depths.keys().next().value);
  return depths.get(at);
}

async function readPixel(event) {
  const frame = frames[position];
  if (!frame) return;
  const box = event.target.getBoundingClientRect();
  const [height, width] = frame.image_size;
  const x = Math.floor(((event.clientX - box.left) / box.width) * width);
  const y = Math.floor(((event.clientY - box.top) / box.height) * height);
  const values = await depthMap(position);
  const [depth, conf] = [values?.[y * width + x], values?.[(height + y) * width + x]];
  read(`Pixel (${x}, ${y}) · ${depth > 0 ? `depth ${number(depth)} · confidence ${number(conf)}` : "no depth"}`);
}

on("image depth confidence", "pointermove", readPixel);
on("image depth confidence", "click", readPixel); // a tap moves nothing
on("image depth confidence", "pointerleave", (event) => event.pointerType === "mouse" && read(""));

// The input: photos, and points to track

function showPreview() {
  const image = byId("first").querySelector("img");
  image.src = `preview?${status.photos[0]?.[0]}`;
  image.onload = fit;
  byId("preview").hidden = false;
  showPhotos();
  showTracker();
}

function showPhotos() {
  byId("photos").hidden = status.photos.length < 2;
  byId("photos").replaceChildren(...status.photos.map(([key, name]) => {
    const item = document.createElement("li");
    const image = Object.assign(new Image(), { loading: "lazy", src: `photo/${key}`, alt: name, title: name });
    const button = Object.assign(document.createElement("button"), { textContent: "×", title: `Remove ${name}` });
    button.addEventListener("click", () => removePhoto(key));
    item.append(image, button);
    return item;
  }));
}

async function removePhoto(key) {
  const response = await post(`photo/${key}/remove`);
  if (!response) return;
  status.photos = await response.json();
  showPreview();
}

/** Whether the selected weights have a tracker: "true", "false", or "null" if unknown. */
const tracker = () => outside?.querySelector("#about [data-tracker]")?.dataset.tracker ?? "null";

/** Offer tracking if the selected weights have a tracker. */
function showTracker() {
  const hasNone = tracker() === "false";
  byId("tracking").textContent = {
    true: "Click points to track (optional), then press Start.",
    false: "The selected weights have no tracker. Press Start.",
    null: "Click points to track (only if the weights have a tracker), then press Start.",
  }[tracker()];
  byId("first").classList.toggle("inert", hasNone);
  const dots = (hasNone ? [] : status.queries).map(
    ([x, y], index) => `<circle cx="${100 * x}%" cy="${100 * y}%" r="6" fill="${css(trackColor(index))}" />`,
  );
  byId("first").querySelector("svg").innerHTML = dots.join("");
  byId("clear-points").hidden = dots.length === 0;
}

async function setQueries(queries) {
  const response = await post("queries", queries);
  if (!response) return;
  status.queries = await response.json();
  showTracker();
}

on("first", "click", (event) => {
  if (tracker() === "false") return;
  const box = byId("first").querySelector("img").getBoundingClientRect();
  const point = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  const others = status.queries.filter(([x, y]) => Math.hypot((x - point[0]) * box.width, (y - point[1]) * box.height) >= 10);
  setQueries(others.length < status.queries.length ? others : [...others, point]);
});
on("clear-points", "click", () => setQueries([]));
on("choose-points", "click", () => (byId("preview").hidden ? showPreview() : (byId("preview").hidden = true)));

// Downloads

async function exported(kind) {
  const { percentile, range: frames, dropEdges, dropSky, dropWhite, dropBlack } = filters();
  const flags = { drop_edges: dropEdges, drop_sky: dropSky, drop_white: dropWhite, drop_black: dropBlack };
  const settings = { source: feed.source, conf_percentile: percentile, frames, ...flags };
  const response = await fetch(`export/${kind}`, { method: "POST", body: JSON.stringify(settings) });
  if (!response.ok) throw new Error(await errorText(response));
  return [await response.blob(), response.headers.get("content-disposition").match(/filename="([^"]+)"/)[1]];
}

async function screenshot() {
  cloud.render(Infinity); // the canvas is empty after its image was shown
  return [await new Promise((done) => byId("scene").toBlob(done)), "screenshot.png"];
}

const DOWNLOADS = { screenshot, "fly-through": () => record(cloud) };

on("downloads", "click", async ({ target }) => {
  const { kind } = target.dataset;
  if (!kind || target.disabled) return;
  target.disabled = true;
  showMessage(`Creating ${target.textContent} …`, false);
  try {
    save(...(await (DOWNLOADS[kind] ?? (() => exported(kind)))()));
    showMessage("", false);
  } catch (error) {
    showMessage(error.message, true);
  } finally {
    target.disabled = false;
  }
});

// Theme and size

function applyTheme() {
  const isDark = outside ? outside.body.classList.contains("dark") : matchMedia("(prefers-color-scheme: dark)").matches;
  const root = document.documentElement;
  root.dataset.theme = isDark ? "dark" : "light";
  const theme = outside && getComputedStyle(outside.body);
  for (const [ours, theirs] of [["--ground", "--body-background-fill"], ["--panel", "--background-fill-secondary"]]) {
    if (theme) root.style.setProperty(ours, theme.getPropertyValue(theirs));
  }
  cloud.setBackground(byId("backdrop").value || getComputedStyle(root).getPropertyValue("--stage").trim());
}

/** On a phone the frame has the height of its content. */
function fit() {
  const frame = window.frameElement;
  const isNarrow = matchMedia("(max-width: 700px)").matches;
  if (frame) frame.style.height = isNarrow ? `${document.body.scrollHeight + 4}px` : "";
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
window.addEventListener("resize", fit);
if (outside) new MutationObserver(applyTheme).observe(outside.body, { attributeFilter: ["class"] });
byId("max-points").max = byId("max-points").value = MAX_SCENE_POINTS / 1000;
applyTheme();
cloud.setPointSize(value("size"));
applyFilters();
feed.follow();
