// Buttons, sliders and pictures around the cloud. Everything but the source of the points, the depth map of a frame and
// downloads is answered here, from what the browser holds.

import { sendFrames } from "./camera.js";
import { Cloud, trackColor } from "./cloud.js";
import { UpdateStream, errorText } from "./updates.js";

const RECENT = 8; // frames, of the choice "the last 8 frames"
const TRACK_LENGTH = 12; // frames of a followed point's way in the picture
const PIXEL_RATIO = 2; // pixels of the canvases per pixel of the pictures, for the lines drawn on them
const PLAY_EVERY = 120; // milliseconds
const DEPTHS_KEPT = 6;
const WAITING = "Waiting for the network …";

const byId = (id) => document.getElementById(id);
const cloud = new Cloud(byId("scene"));
const isStandalone = window.parent === window; // without a page around, so without a Start button
document.body.classList.toggle("alone", isStandalone);
let frames = []; // what the pictures and the timeline need of each packet
let status = { state: "", run: 0, num_frames: 0, sources: ["depth"], queries: [], kind: "images" };
let position = 0;
let followLatest = true; // the newest frame is shown until the visitor looks at another
let measuredPoints = [];
let isSizeChosen = false;
let isCameraOn = false; // the visitor's camera is on
let cameraTrouble = ""; // why it cannot be used
const depths = new Map(); // of frames looked at lately, by position

const feed = new UpdateStream({ onStatus, onFrame, onFrames, onRun, onError });
if (new URLSearchParams(location.search).has("expect-run")) feed.wantedRun = 1; // it begins by itself
window.addEventListener("message", (event) => {
  if (event.origin !== location.origin) return;
  if (event.data === "run-over") feed.stopExpecting();
  if (event.data === "expect-run") {
    feed.expectRun();
    byId("state").textContent = WAITING;
  }
});
window.viewer = { cloud, feed }; // for tests, and for the curious

// News

function onRun() {
  frames = [];
  depths.clear();
  [position, followLatest, measuredPoints] = [0, true, []];
  cloud.clear();
  cloud.mark([]);
  byId("preview").hidden = true;
  byId("reading").hidden = true;
  byId("source").value = feed.source = "depth";
}

function onFrame(packet) {
  if (packet.position < frames.length) return cloud.replacePoints(packet.position, packet);
  frames.push({ ...packet, points: null, colors: null, conf: null });
  cloud.add(packet);
  if (frames.length === 1 && !isSizeChosen) {
    byId("size").value = cloud.autoPointSize();
    cloud.setPointSize(Number(byId("size").value));
  }
}

/** Some have come: show the newest, unless the visitor looks at another. */
async function onFrames() {
  byId("position").max = frames.length - 1;
  if (followLatest) position = frames.length - 1;
  applyFilters();
  if (byId("follow").checked) cloud.flyTo(position);
  await showFrame();
}

function onStatus(news) {
  const isNew = news.state !== status.state || news.run !== status.run;
  status = news;
  const isActive = ["loading", "running"].includes(news.state);
  byId("stop").hidden = !isActive;
  byId("stop").disabled = false;
  byId("progress").hidden = !isActive;
  if (news.expected && news.num_frames) byId("progress").value = Math.min(news.num_frames / news.expected, 1);
  else byId("progress").removeAttribute("value");
  byId("state").textContent = statusText(news);
  showMessage(news.message || cameraTrouble, news.state === "failed" || Boolean(cameraTrouble));
  byId("downloads").disabled = !news.num_frames;
  byId("source").querySelector("[value=head]").disabled = !news.sources.includes("head");
  byId("choose-points").hidden = isStandalone || news.kind === "live" || isActive || !news.num_frames;
  if (isNew && news.state === "ready" && !isStandalone && news.kind !== "live") showPreview();
  if (news.is_fed && isActive && !isCameraOn) sendCameraFrames();
  fit();
}

async function sendCameraFrames() {
  isCameraOn = true;
  try {
    await sendFrames(() => ["loading", "running"].includes(status.state));
  } catch (error) {
    cameraTrouble = error.message; // the server does not know it, and its next news must not hide it
    showMessage(cameraTrouble, true);
    fetch("stop", { method: "POST" });
  }
  isCameraOn = false;
}

function statusText({ state, num_frames, expected, fps, seconds_left, memory_mb, weights, kind }) {
  const count = `${num_frames} ${num_frames === 1 ? "frame" : "frames"}`;
  const speed = fps ? ` · ${fps < 1 ? fps.toFixed(2) : fps.toFixed(1)} frames/s` : "";
  if (state === "loading") return `Loading the weights ${weights} and the first frame …`;
  if (feed.wantedRun > status.run) return WAITING;
  if (state === "ready") return kind === "live" ? "Waiting for the camera …" : "Ready. Press Start.";
  if (state === "running") {
    const left = seconds_left > 0.5 ? ` · ${duration(seconds_left)} left` : "";
    return `Frame ${num_frames}${expected ? ` of ${expected}` : ""}${speed}${left} · memory ${Math.round(memory_mb)} MB · ${weights}`;
  }
  if (state === "failed") return num_frames ? `Stopped by a problem after ${count}; they are kept.` : "It did not work.";
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
  byId("message").textContent = text;
  byId("message").classList.toggle("alarm", isAlarm);
}

// The frame shown

async function showFrame() {
  const frame = frames[position];
  if (!frame) return;
  byId("position").value = position;
  const time = frame.time === null ? "" : ` · ${frame.time.toFixed(2)} s`;
  byId("which").textContent = `${position + 1} / ${frames.length}${time}`;
  byId("which").title = frame.name;
  const [x, y, z] = cloud.frames[position].pose.center;
  const focal = frame.intrinsics[0];
  const fov = (2 * Math.atan(frame.image_size[1] / 2 / focal) * 180) / Math.PI;
  byId("pose").textContent =
    `Camera at (${x.toFixed(3)}, ${y.toFixed(3)}, ${z.toFixed(3)}), field of view ${fov.toFixed(0)}°. ` +
    "Move over the pictures or click into the scene to measure.";
  drawCameras();
  const shown = position;
  const bitmap = await createImageBitmap(frame.picture);
  if (shown !== position) return;
  const width = bitmap.width / 3;
  ["image", "depth", "confidence"].forEach((name, index) => {
    const canvas = byId(name);
    [canvas.width, canvas.height] = [PIXEL_RATIO * width, PIXEL_RATIO * bitmap.height];
    const pen = canvas.getContext("2d");
    pen.drawImage(bitmap, index * width, 0, width, bitmap.height, 0, 0, canvas.width, canvas.height);
  });
  if (byId("tracks").checked) drawTracks(byId("image").getContext("2d"), (PIXEL_RATIO * width) / frame.image_size[1]);
  fit();
}

function drawTracks(pen, scale) {
  pen.lineWidth = 2.5;
  frames[position].tracks.forEach(([x, y, visible], number) => {
    const color = `rgb(${trackColor(number).map((value) => value * 255).join()})`;
    pen.strokeStyle = pen.fillStyle = color;
    pen.beginPath();
    for (let index = Math.max(position - TRACK_LENGTH, 0); index <= position; index++) {
      const [u, v] = frames[index].tracks[number];
      pen.lineTo(u * scale, v * scale);
    }
    pen.stroke();
    pen.beginPath();
    pen.arc(x * scale, y * scale, 7, 0, 7);
    if (visible > 0.5) pen.fill();
    else pen.stroke();
  });
}

function drawCameras() {
  cloud.showCameras({ cameras: byId("cameras").checked, tracks: byId("tracks").checked, position });
}

function showFrameAt(where) {
  position = Math.max(0, Math.min(where, frames.length - 1));
  followLatest = position === frames.length - 1;
  showFrame();
  applyFilters();
  if (byId("follow").checked) cloud.flyTo(position);
}

byId("position").addEventListener("input", () => showFrameAt(Number(byId("position").value)));
let playing = null;
byId("play").addEventListener("click", () => {
  clearInterval(playing);
  playing = playing
    ? null
    : setInterval(() => showFrameAt(position + 1 < frames.length ? position + 1 : 0), PLAY_EVERY);
  byId("play").textContent = playing ? "❚❚" : "▶";
  byId("play").setAttribute("aria-label", playing ? "Pause" : "Play");
});

// What the cloud shows

function range() {
  const last = frames.length - 1;
  return {
    all: [0, last],
    past: [0, position],
    recent: [Math.max(position - RECENT + 1, 0), position],
    one: [position, position],
  }[byId("span").value];
}

function filters() {
  return {
    percentile: Number(byId("percentile").value),
    dropWhite: byId("dropWhite").checked,
    dropBlack: byId("dropBlack").checked,
    dropSky: byId("dropSky").checked,
    range: range(),
  };
}

function applyFilters() {
  document.querySelector("[for=percentile]").textContent = `${byId("percentile").value} %`;
  document.querySelector("[for=size]").textContent = byId("size").value;
  cloud.filter(filters());
}

for (const id of ["percentile", "span", "dropWhite", "dropBlack", "dropSky"]) byId(id).addEventListener("input", applyFilters);
byId("size").addEventListener("input", () => {
  isSizeChosen = true;
  cloud.setPointSize(Number(byId("size").value));
  applyFilters();
});
byId("cameras").addEventListener("input", drawCameras);
byId("tracks").addEventListener("input", showFrame);
byId("source").addEventListener("input", () => feed.setSource(byId("source").value));
byId("backdrop").addEventListener("input", applyTheme);
byId("reset").addEventListener("click", () => {
  byId("follow").checked = false;
  cloud.resetView();
});
byId("follow").addEventListener("input", () => byId("follow").checked && cloud.flyTo(position));
cloud.onGrab = () => {
  byId("follow").checked = false;
  cloud.goal = null;
};
byId("large").addEventListener("click", () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else byId("stage").requestFullscreen();
});
byId("stop").addEventListener("click", () => {
  byId("stop").disabled = true;
  fetch("stop", { method: "POST" });
});

// Measuring

function read(text) {
  byId("reading").hidden = !text;
  byId("reading").textContent = text;
}

const number = (value) => Number(value.toPrecision(4)).toString();

let pressed = null;
byId("scene").addEventListener("pointerdown", (event) => (pressed = [event.clientX, event.clientY]));
byId("scene").addEventListener("pointerup", (event) => {
  if (!pressed || Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > 4) return;
  const { left, top } = byId("scene").getBoundingClientRect();
  const found = cloud.pick(event.clientX - left, event.clientY - top);
  if (!found || measuredPoints.length === 2) measuredPoints = [];
  if (found) measuredPoints.push(found.world);
  cloud.mark(measuredPoints);
  if (!found) return read("");
  const depth = number(cloud.depthFrom(found.position, found.world));
  const text = `(${found.world.map(number).join(", ")}) · depth ${depth} in frame ${found.position + 1} · confidence ${number(found.conf)}`;
  const apart = measuredPoints.length === 2 ? ` · ${number(Math.hypot(...measuredPoints[0].map((value, i) => value - measuredPoints[1][i])))} from the first point` : "";
  read(text + apart);
});

async function depthMap(where) {
  if (!depths.has(where)) {
    const answer = fetch(`depth/${where}`).then(async (got) => (got.ok ? new Float32Array(await got.arrayBuffer()) : null));
    depths.set(where, answer);
    if (depths.size > DEPTHS_KEPT) depths.delete(depths.keys().next().value);
  }
  return depths.get(where);
}

async function readPixel(event) {
  const frame = frames[position];
  if (!frame) return;
  const box = event.target.getBoundingClientRect();
  const [height, width] = frame.image_size;
  const x = Math.floor(((event.clientX - box.left) / box.width) * width);
  const y = Math.floor(((event.clientY - box.top) / box.height) * height);
  const values = await depthMap(position);
  const depth = values?.[y * width + x];
  read(
    depth > 0
      ? `Pixel (${x}, ${y}) · depth ${number(depth)} · confidence ${number(values[height * width + y * width + x])}`
      : `Pixel (${x}, ${y}) · no depth here`,
  );
}

for (const id of ["image", "depth", "confidence"]) {
  byId(id).addEventListener("pointermove", readPixel);
  byId(id).addEventListener("click", readPixel); // a tap moves nothing
  byId(id).addEventListener("pointerleave", (event) => event.pointerType === "mouse" && read(""));
}

// Points to follow

function showPreview() {
  const image = byId("first").querySelector("img");
  image.src = "preview";
  image.onload = fit;
  byId("preview").hidden = false;
  drawQueries();
}

function drawQueries() {
  const dots = status.queries.map(
    ([x, y], index) =>
      `<circle cx="${100 * x}%" cy="${100 * y}%" r="6" fill="rgb(${trackColor(index).map((v) => v * 255).join()})" stroke="white" stroke-width="1.5" />`,
  );
  byId("first").querySelector("svg").innerHTML = dots.join("");
  byId("clear-points").hidden = dots.length === 0;
}

async function setQueries(queries) {
  const answer = await fetch("queries", { method: "POST", body: JSON.stringify(queries) });
  if (!answer.ok) return showMessage(await errorText(answer), true);
  status.queries = await answer.json();
  drawQueries();
}

byId("first").addEventListener("click", (event) => {
  const box = byId("first").querySelector("img").getBoundingClientRect();
  const point = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  const near = ([x, y]) => Math.hypot((x - point[0]) * box.width, (y - point[1]) * box.height) < 10;
  const others = status.queries.filter((query) => !near(query));
  setQueries(others.length < status.queries.length ? others : [...others, point]);
});
byId("clear-points").addEventListener("click", () => setQueries([]));
byId("choose-points").addEventListener("click", () => {
  if (byId("preview").hidden) showPreview();
  else byId("preview").hidden = true;
});

// Downloads

byId("downloads").addEventListener("click", async ({ target }) => {
  if (!target.dataset.kind || target.disabled) return;
  const label = target.textContent;
  target.disabled = true;
  target.textContent = "…";
  showMessage(`Making ${label} …`, false);
  try {
    const { percentile, dropWhite, dropBlack, dropSky, range: span } = filters();
    const settings = {
      source: feed.source, conf_percentile: percentile, frames: span,
      drop_white: dropWhite, drop_black: dropBlack, drop_sky: dropSky,
    };
    const answer = await fetch(`export/${target.dataset.kind}`, { method: "POST", body: JSON.stringify(settings) });
    if (!answer.ok) throw new Error(await errorText(answer));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = answer.headers.get("content-disposition").match(/filename="([^"]+)"/)[1];
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    showMessage("", false);
  } catch (error) {
    showMessage(`${label} could not be made: ${error.message}`, true);
  } finally {
    target.disabled = false;
    target.textContent = label;
  }
});

// Looks

function applyTheme() {
  const outside = isStandalone ? null : window.parent.document;
  const isDark = outside ? outside.body.classList.contains("dark") : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  if (outside) {
    const theme = getComputedStyle(outside.body);
    for (const [ours, theirs] of [["--ground", "--body-background-fill"], ["--panel", "--background-fill-secondary"]]) {
      document.documentElement.style.setProperty(ours, theme.getPropertyValue(theirs));
    }
  }
  const style = getComputedStyle(document.documentElement);
  cloud.setBackground(byId("backdrop").value || style.getPropertyValue("--stage").trim());
}

/** On a phone the frame around us takes the height of what is in it. */
function fit() {
  const frame = window.frameElement;
  if (!frame) return;
  const isNarrow = matchMedia("(max-width: 700px)").matches;
  frame.style.height = isNarrow ? `${document.body.scrollHeight + 4}px` : "";
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
window.addEventListener("resize", fit);
if (!isStandalone) {
  new MutationObserver(applyTheme).observe(window.parent.document.body, { attributeFilter: ["class"] });
}
applyTheme();
cloud.setPointSize(Number(byId("size").value));
applyFilters();
feed.follow();
