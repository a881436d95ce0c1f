// Updates of a scene from the server: its status, and packets of frames (format: packet.py).

const RETRY_INTERVAL = 2000; // milliseconds, after the connection broke

/** Parse a packet: its header, with its arrays, which start at multiples of 4 bytes. */
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
    packets.push(unpack(buffer, start + 4));
    start += 4 + new DataView(buffer).getUint32(start, true);
  }
  return packets;
}

/** The reason in a response that is not "ok". */
export async function errorText(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).detail ?? text;
  } catch {
    return text;
  }
}

/** Long polling while there can be updates. Requests more after the last frames were processed. */
export class UpdateStream {
  constructor(handlers) {
    Object.assign(this, handlers); // onStatus, onFrame, onFrames, onRun, onError
    this.source = "depth";
    this.have = 0;
    this.status = { run: 0, state: "", num_frames: 0 };
    this.wantedRun = 0;
  }

  /** Poll until the next run begins. */
  expectRun() {
    this.wantedRun = this.status.run + 1;
    this.wake?.();
  }

  /** The expected run is over or was rejected: request the status once more. */
  stopExpecting() {
    if (this.wantedRun <= this.status.run) return; // the run has begun
    this.wantedRun = 0;
    this.status = { ...this.status, state: "" };
    this.wake?.();
  }

  /** Request the points of all frames again, from another source. */
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
      const { source, have, status: { run, state } } = this;
      let packets;
      try {
        const response = await fetch(`updates?${new URLSearchParams({ have, run, state, source })}`);
        if (response.status === 404) return this.onError(await errorText(response), true);
        if (!response.ok) throw new Error(await errorText(response));
        packets = unpackAll(await response.arrayBuffer());
      } catch {
        this.onError("Connection lost. Trying again …", false);
        await new Promise((resolve) => setTimeout(resolve, RETRY_INTERVAL));
        continue;
      }
      const [status, ...frames] = packets;
      if (status.run !== run) {
        this.have = 0;
        this.onRun();
      }
      this.status = status;
      this.onStatus(status);
      if (source !== this.source) continue; // changed during the request
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
