// What the server says of a scene: its status, and packets of frames (their form: packet.py).

const RETRY_AFTER = 2000; // milliseconds, after the connection broke

/** Take a packet apart: its header, with each array of it as bytes that begin at a multiple of 4. */
function unpack(buffer, start) {
  const headerLength = new DataView(buffer).getUint32(start, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, start + 4, headerLength)));
  const base = start + 4 + headerLength;
  const bytes = (name) => buffer.slice(base + header.arrays[name][0], base + header.arrays[name].reduce((a, b) => a + b));
  if (!header.arrays.points) return header;
  return {
    ...header,
    points: new Float32Array(bytes("points")),
    colors: new Uint8Array(bytes("colors")),
    conf: new Float32Array(bytes("conf")),
    picture: new Blob([bytes("picture")], { type: "image/jpeg" }),
  };
}

function unpackAll(buffer) {
  const packets = [];
  for (let start = 0; start < buffer.byteLength; ) {
    const length = new DataView(buffer).getUint32(start, true);
    packets.push(unpack(buffer, start + 4));
    start += 4 + length;
  }
  return packets;
}

/** The reason in an answer that is not "ok", in words. */
export async function errorText(answer) {
  const text = await answer.text();
  try {
    return JSON.parse(text).detail ?? text;
  } catch {
    return text;
  }
}

/**
 * Keeps asking for news while there may be some, and rests when a run has ended and everything has come.
 * It asks for more only when what came has been taken, so a slow browser is never flooded.
 */
export class UpdateStream {
  constructor({ onStatus, onFrame, onFrames, onRun, onError }) {
    Object.assign(this, { onStatus, onFrame, onFrames, onRun, onError });
    this.source = "depth";
    this.have = 0;
    this.status = { run: 0, state: "", num_frames: 0 };
    this.wantedRun = 0;
  }

  /** A run is about to begin: watch out for it. */
  expectRun() {
    this.wantedRun = this.status.run + 1;
    this.wake?.();
  }

  /** The run that was expected is over, or never began: ask once more how things are. */
  stopExpecting() {
    if (this.wantedRun <= this.status.run) return; // it has been seen to begin
    this.wantedRun = 0;
    this.status = { ...this.status, state: "" };
    this.wake?.();
  }

  /** Show other points of the same frames: get them all again. */
  setSource(source) {
    this.source = source;
    this.have = 0;
    this.wake?.();
  }

  get hasAll() {
    const isActive = ["loading", "running", ""].includes(this.status.state);
    return !isActive && this.status.run >= this.wantedRun && this.have >= this.status.num_frames;
  }

  async follow() {
    for (;;) {
      if (this.hasAll) await new Promise((resolve) => (this.wake = resolve));
      const source = this.source;
      const question = new URLSearchParams({ have: this.have, run: this.status.run, state: this.status.state, source });
      let packets;
      try {
        const answer = await fetch(`updates?${question}`);
        if (answer.status === 404) return this.onError(await errorText(answer), true);
        if (!answer.ok) throw new Error(await errorText(answer));
        packets = unpackAll(await answer.arrayBuffer());
      } catch (error) {
        this.onError("The connection is gone; trying again …", false);
        await new Promise((resolve) => setTimeout(resolve, RETRY_AFTER));
        continue;
      }
      const [status, ...frames] = packets;
      if (status.run !== this.status.run) {
        this.have = 0;
        this.onRun();
      }
      this.status = status;
      this.onStatus(status);
      if (source !== this.source) continue; // chosen while the answer was on its way
      for (const frame of frames) {
        if (frame.position !== this.have) break;
        this.onFrame(frame);
        this.have += 1;
      }
      if (frames.length) await this.onFrames();
      this.onStatus(status);
    }
  }
}
