// Files made in the browser: a video of a flight along the trajectory.

const TYPES = ["video/mp4;codecs=avc1.42E01F", "video/webm;codecs=vp8"]; // encoders that keep up on slow machines
const FRAMES_PER_SECOND = 30;
const SECONDS_PER_FRAME = 0.12; // of the input
const MAX_STEP = 0.25; // seconds per image; a slow machine flies more slowly
const [MIN_SECONDS, MAX_SECONDS] = [3, 20];

/** Record the flight. Returns the video and its file name. The view returns to where it was. */
export async function record(cloud) {
  const type = TYPES.find((name) => window.MediaRecorder?.isTypeSupported(name));
  if (!type) throw new Error("This browser cannot record videos.");
  cloud.controls.saveState();
  const path = cloud.flightPath();
  const seconds = Math.min(Math.max(cloud.frames.length * SECONDS_PER_FRAME, MIN_SECONDS), MAX_SECONDS);
  const recorder = new MediaRecorder(cloud.canvas.captureStream(FRAMES_PER_SECOND), { mimeType: type });
  const pieces = [];
  recorder.ondataavailable = ({ data }) => pieces.push(data);
  const stopped = new Promise((done) => (recorder.onstop = done));
  cloud.drawsAll = true;
  cloud.setView("none");
  recorder.start();
  let last = performance.now();
  for (let time = 0; time < seconds; ) {
    cloud.look(path(time / seconds));
    const now = await new Promise(requestAnimationFrame);
    time += Math.min(Math.max(now - last, 1) / 1000, MAX_STEP);
    last = now;
  }
  recorder.stop();
  await stopped;
  cloud.drawsAll = false;
  cloud.controls.reset();
  return [new Blob(pieces, { type }), `fly-through.${type.match(/\w+(?=;)/)[0]}`];
}

/** Offer a file as a download. */
export function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
