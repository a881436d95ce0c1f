// Updates of a scene from the server: its status, and packets of frames (format: packet.py).

const RETRY_INTERVAL = 2000; // milliseconds, after the connection broke
const ARRAY_TYPES = { points: Float32Array, conf: Float32Array }; // others are bytes

/** Parse packets with length prefixes: the header of each with its arrays. All lengths are multiples of 4 bytes. */
function unpack(buffer) {
  const length = (at) => new DataView(buffer).getUint32(at, true);
  const packets = [];
  for (let start = 0; start < buffer.byteLength; start += 4 + length(start)) {
    const base = start + 8 + length(start + 4);
    const packet = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, start + 8, length(start + 4))));
    for (const [name, [offset, size]] of Object.entries(packet.arrays)) {
      const Type = ARRAY_TYPES[name] ?? Uint8Array;
      packet[name] = new Type(buffer, base + offset, size / Type.BYTES_PER_ELEMENT);
    }
    packets.push(packet);
  }
  return packets;
}

/** Long polling while there can be updates. Requests more after the last frames were processed. */
export class UpdateStream {
  constructor(handlers) {
    Object.assign(this, handlers); // onStatus, onFrame, onFrames, onRun, onError
    this.source = "depth";
    this.have = 0;
    this.status = { run: 0, state: "", num_frames: 0, queries: [], photos: [] };
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
    const known = this.status;
    this.status = { ...known, state: "" };
    this.onStatus(known, known); // at once, because the answer to a pending request can take seconds
    this.wake?.();
  }

  /** Request the points of all frames again, from another source. */
  setSource(source) {
    this.source = source;
    this.have = 0;
    this.wake?.();
  }

  get isActive() {
    return ["loading", "running"].includes(this.status.state);
  }

  get hasAll() {
    const { state, run, num_frames } = this.status;
    return state && !this.isActive && run >= this.wantedRun && this.have >= num_frames;
  }

  async follow() {
    for (;;) {
      if (this.hasAll) await new Promise((resolve) => (this.wake = resolve));
      const { source, have, status: { run, state } } = this;
      let packets;
      try {
        const response = await fetch(`updates?${new URLSearchParams({ have, run, state, source })}`);
        if (response.status === 404) return this.onError(await response.text());
        if (!response.ok) throw new Error(await response.text());
        packets = unpack(await response.arrayBuffer());
      } catch {
        this.onError("Connection lost. Trying again …");
        await new Promise((resolve) => setTimeout(resolve, RETRY_INTERVAL));
        continue;
      }
      const [status, ...frames] = packets;
      if (status.run !== run) {
        this.have = 0;
        this.onRun();
      }
      const before = this.status;
      this.status = status;
      this.onStatus(status, before);
      if (source !== this.source) continue; // changed during the request
      for (const frame of frames) {
        if (frame.position !== this.have) break;
        this.have += 1;
        this.onFrame(frame);
      }
      if (frames.length) await this.onFrames();
    }
  }
}
