// The scene in 3D: a cloud of points per frame, cameras, followed points. Draws only when something has changed, and
// while things move only as many points as the graphics can draw in time; the rest follow when it is calm.
// World axes are OpenCV's (x right, y down, z forward); one group turns them into three.js's (y up, z backward).

import {
  BufferAttribute, BufferGeometry, Color, Group, LineBasicMaterial, LineSegments, Matrix4, PerspectiveCamera, Points,
  Scene, ShaderMaterial, Vector3, WebGLRenderer, OrbitControls,
} from "../../viewer/three.min.js";

const MAX_SCENE_POINTS = 1_200_000; // held and drawn at most, about; as in packet.py
const PERCENTILE_SAMPLE = 100_000; // points of which the percentile of the confidence is taken
const CAMERA_SIZE = 0.05; // of the scene's size
const FOLLOW_SPEED = 0.15; // of the way, per picture
const FRAME_BUDGET_MS = 30; // milliseconds that a picture may take while things move
const IDLE_DELAY_MS = 300; // milliseconds without a change

const vertexShader = `
  uniform float pointSize, sceneScale, threshold;
  uniform bool dropWhite, dropBlack, dropSky;
  attribute float conf;
  attribute vec4 paint;
  varying vec3 shade;
  void main() {
    vec3 rgb = floor(paint.rgb * 255.0 + 0.5);
    bool hidden = conf < threshold
      || (dropWhite && rgb.r > 240.0 && rgb.g > 240.0 && rgb.b > 240.0)
      || (dropBlack && rgb.r + rgb.g + rgb.b < 16.0)
      || (dropSky && paint.a > 0.0);
    vec4 eye = modelViewMatrix * vec4(position, 1.0);
    gl_Position = hidden ? vec4(2.0, 2.0, 2.0, 1.0) : projectionMatrix * eye;
    gl_PointSize = clamp(pointSize * sceneScale / max(-eye.z, 1e-6), 1.0, 32.0);
    shade = paint.rgb;
  }`;

const fragmentShader = `
  varying vec3 shade;
  void main() {
    if (length(gl_PointCoord - 0.5) > 0.5) discard;
    gl_FragColor = vec4(shade, 1.0);
  }`;

export class Cloud {
  constructor(canvas) {
    this.canvas = canvas;
    this.renderer = new WebGLRenderer({ canvas, antialias: false, powerPreference: "high-performance" });
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio, 1.5));
    this.scene = new Scene();
    this.camera = new PerspectiveCamera(55, 1, 0.01, 1000);
    this.controls = new OrbitControls(this.camera, canvas);
    this.controls.enableDamping = true;
    this.controls.addEventListener("change", () => this.draw());
    this.controls.addEventListener("start", () => this.onGrab?.());
    this.world = new Group();
    this.world.scale.set(1, -1, -1);
    this.scene.add(this.world);
    this.material = new ShaderMaterial({
      vertexShader,
      fragmentShader,
      uniforms: {
        pointSize: { value: 4 },
        sceneScale: { value: 1 },
        threshold: { value: -1 },
        dropWhite: { value: false },
        dropBlack: { value: false },
        dropSky: { value: false },
      },
    });
    this.cameras = lines(this.world);
    this.current = lines(this.world);
    this.paths = lines(this.world);
    this.marks = lines(this.world);
    this.filters = { percentile: 30, dropWhite: false, dropBlack: false, dropSky: false, range: [0, 0] };
    this.frames = [];
    this.scale = 1;
    this.goal = null;
    this.speed = 20_000; // points that the graphics draw in a millisecond, as measured lately
    this.isCalm = true; // all points are drawn
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
    this.clear();
    this.resize();
  }

  clear() {
    for (const frame of this.frames) this.remove(frame);
    this.frames = [];
    this.sample = null;
    for (const part of [this.cameras, this.current, this.paths, this.marks]) setLines(part, [], []);
    this.draw();
  }

  /** Take the next frame of a packet. */
  add(packet) {
    const geometry = new BufferGeometry();
    geometry.setAttribute("position", new BufferAttribute(packet.points, 3));
    geometry.setAttribute("paint", new BufferAttribute(packet.colors, 4, true));
    geometry.setAttribute("conf", new BufferAttribute(packet.conf, 1));
    const points = new Points(geometry, this.material);
    points.frustumCulled = false;
    this.world.add(points);
    const pose = poseOf(packet.cam_from_world);
    this.frames.push({ points, num: 0, pose, intrinsics: packet.intrinsics, size: packet.image_size, tracks: packet.tracks });
    this.sample = null;
    this.share();
    if (this.frames.length === 1) {
      this.scale = medianDistance(packet.points, pose.center) || 1;
      this.camera.near = this.scale / 100;
      this.camera.far = this.scale * 200;
      this.resetView();
    }
  }

  /** Other points for frames that are there. */
  replacePoints(position, packet) {
    const geometry = this.frames[position].points.geometry;
    geometry.dispose();
    geometry.setAttribute("position", new BufferAttribute(packet.points, 3));
    geometry.setAttribute("paint", new BufferAttribute(packet.colors, 4, true));
    geometry.setAttribute("conf", new BufferAttribute(packet.conf, 1));
    this.sample = null;
    this.share();
  }

  remove(frame) {
    frame.points.geometry.dispose();
    this.world.remove(frame.points);
  }

  /** Every frame draws as many points as every other. What is never drawn again is let go. */
  share() {
    const each = Math.floor(MAX_SCENE_POINTS / Math.max(this.frames.length, 1));
    for (const frame of this.frames) {
      const { geometry } = frame.points;
      const held = geometry.attributes.conf.count;
      if (held > 2 * each) {
        geometry.dispose(); // the graphics memory; three.js fills it again
        for (const [name, attribute] of Object.entries(geometry.attributes)) {
          const array = attribute.array.slice(0, each * attribute.itemSize);
          geometry.setAttribute(name, new BufferAttribute(array, attribute.itemSize, attribute.normalized));
        }
      }
      frame.num = Math.min(each, geometry.attributes.conf.count);
    }
  }

  /** Show what passes the filters; `range` is the first and the last position. */
  filter(changes) {
    const before = JSON.stringify({ ...this.filters, percentile: 0 });
    Object.assign(this.filters, changes);
    if (JSON.stringify({ ...this.filters, percentile: 0 }) !== before) this.sample = null;
    const [first, last] = this.filters.range;
    this.frames.forEach((frame, position) => (frame.points.visible = position >= first && position <= last));
    const uniforms = this.material.uniforms;
    for (const name of ["dropWhite", "dropBlack", "dropSky"]) uniforms[name].value = this.filters[name];
    this.sample ??= this.confidences();
    const index = Math.floor((this.filters.percentile / 100) * this.sample.length);
    uniforms.threshold.value = this.filters.percentile > 0 && this.sample.length ? this.sample[index] : -1;
    this.draw();
  }

  /** Sorted confidences of a sample of the points that pass the other filters. */
  confidences() {
    const visible = this.frames.filter((frame) => frame.points.visible);
    const each = Math.ceil(PERCENTILE_SAMPLE / Math.max(visible.length, 1));
    const found = [];
    for (const { points, num } of visible) {
      const { conf, paint } = points.geometry.attributes;
      const count = Math.min(num, each);
      for (let i = 0; i < count; i++) if (this.isVisible(paint.array, 4 * i)) found.push(conf.array[i]);
    }
    return new Float32Array(found).sort();
  }

  isVisible(paint, at) {
    const [red, green, blue, sky] = [paint[at], paint[at + 1], paint[at + 2], paint[at + 3]];
    const { dropWhite, dropBlack, dropSky } = this.filters;
    return !(dropWhite && red > 240 && green > 240 && blue > 240)
      && !(dropBlack && red + green + blue < 16) && !(dropSky && sky > 0);
  }

  /** The size at which the first frame's points just close up, seen from behind its camera. */
  autoPointSize() {
    const [{ points, intrinsics, size: [height, width] }] = this.frames;
    const numPoints = Math.max(points.geometry.attributes.conf.count, 1);
    const focal = this.canvas.clientHeight / 2 / Math.tan((this.camera.fov * Math.PI) / 360);
    return 1.5 * (focal / intrinsics[0]) * Math.sqrt((height * width) / numPoints);
  }

  setPointSize(size) {
    this.material.uniforms.pointSize.value = size;
    this.draw();
  }

  setBackground(color) {
    this.scene.background = new Color(color);
    this.draw();
  }

  /** Draw the cameras of all frames up to the last, the one at `position` brighter, and the followed points' ways. */
  showCameras({ cameras, tracks, position }) {
    const [vertices, colors] = [[], []];
    const [own, ownColors] = [[], []];
    if (cameras) {
      this.frames.forEach((frame, index) => {
        const corners = frustum(frame, CAMERA_SIZE * this.scale * (index === position ? 1.6 : 1));
        if (index === position) addFrustum(own, ownColors, corners, [1, 0.45, 0.1]);
        else addFrustum(vertices, colors, corners, timeColor(index / Math.max(this.frames.length - 1, 1)));
        if (index > 0) {
          vertices.push(...this.frames[index - 1].pose.center, ...frame.pose.center);
          colors.push(0.55, 0.55, 0.6, 0.55, 0.55, 0.6);
        }
      });
    }
    setLines(this.cameras, vertices, colors);
    setLines(this.current, own, ownColors);
    const [ways, wayColors] = [[], []];
    if (tracks) {
      for (let index = 1; index <= position && index < this.frames.length; index++) {
        this.frames[index].tracks.forEach((track, number) => {
          const before = this.frames[index - 1].tracks[number];
          if (track.length < 6 || !before || before.length < 6 || track[2] < 0.5 || before[2] < 0.5) return;
          ways.push(...before.slice(3, 6), ...track.slice(3, 6));
          wayColors.push(...trackColor(number), ...trackColor(number));
        });
      }
    }
    setLines(this.paths, ways, wayColors);
    this.draw();
  }

  /** The view from behind the first camera. */
  resetView() {
    if (!this.frames.length) return;
    const { eye, target } = this.behind(this.frames[0]);
    this.goal = null;
    this.camera.position.copy(eye);
    this.controls.target.copy(target);
    this.controls.update();
    this.draw();
  }

  /** Glide to the view from behind a frame's camera. */
  flyTo(position) {
    if (!this.frames[position]) return;
    this.goal = this.behind(this.frames[position]);
    this.draw();
  }

  behind({ pose }) {
    const flip = ([x, y, z]) => new Vector3(x, -y, -z);
    const center = flip(pose.center);
    const forward = flip(pose.forward);
    const eye = center.clone().addScaledVector(forward, -0.45 * this.scale).add(new Vector3(0, 0.18 * this.scale, 0));
    return { eye, target: center.addScaledVector(forward, 0.8 * this.scale) };
  }

  /** The point drawn nearest to a place of the canvas (CSS pixels), or null: {world, position, conf}. */
  pick(x, y) {
    const { width, height } = this.canvas.getBoundingClientRect();
    this.camera.updateMatrixWorld();
    const matrix = new Matrix4().multiplyMatrices(this.camera.projectionMatrix, this.camera.matrixWorldInverse);
    matrix.multiply(this.world.matrixWorld);
    const m = matrix.elements;
    let [best, bestCost] = [null, Infinity];
    const { threshold } = this.material.uniforms;
    this.frames.forEach(({ points, num }, position) => {
      if (!points.visible) return;
      const p = points.geometry.attributes.position.array;
      const { array: paint } = points.geometry.attributes.paint;
      const { array: conf } = points.geometry.attributes.conf;
      for (let i = 0; i < num; i++) {
        const [a, b, c] = [p[3 * i], p[3 * i + 1], p[3 * i + 2]];
        const w = m[3] * a + m[7] * b + m[11] * c + m[15];
        if (w <= 0) continue;
        const dx = ((m[0] * a + m[4] * b + m[8] * c + m[12]) / w + 1) * width / 2 - x;
        const dy = (1 - (m[1] * a + m[5] * b + m[9] * c + m[13]) / w) * height / 2 - y;
        const off = dx * dx + dy * dy;
        if (off > 100 || conf[i] < threshold.value || !this.isVisible(paint, 4 * i)) continue;
        const cost = w * (1 + off / 50); // near the eye, and near the cursor
        if (cost < bestCost) [best, bestCost] = [{ world: [a, b, c], position, conf: conf[i] }, cost];
      }
    });
    return best;
  }

  /** How far along the optical axis of a frame's camera a world point lies. */
  depthFrom(position, [x, y, z]) {
    const { pose } = this.frames[position];
    return pose.forward[0] * (x - pose.center[0]) + pose.forward[1] * (y - pose.center[1])
      + pose.forward[2] * (z - pose.center[2]);
  }

  /** Mark picked points, and the line between two. */
  mark(worlds) {
    const [vertices, colors] = [[], []];
    const arm = 0.02 * this.scale;
    for (const [x, y, z] of worlds) {
      vertices.push(x - arm, y, z, x + arm, y, z, x, y - arm, z, x, y + arm, z, x, y, z - arm, x, y, z + arm);
    }
    if (worlds.length === 2) vertices.push(...worlds[0], ...worlds[1]);
    for (let i = 0; i < vertices.length / 3; i++) colors.push(1, 0.2, 0.5);
    setLines(this.marks, vertices, colors);
    this.draw();
  }

  get numPoints() {
    return this.frames.reduce((sum, { points, num }) => sum + (points.visible ? num : 0), 0);
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    if (!width || !height) return;
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    this.draw();
  }

  /** Ask for one picture; many asks before it are one. */
  draw() {
    this.isCalm = false;
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      if (this.goal) {
        this.camera.position.lerp(this.goal.eye, FOLLOW_SPEED);
        this.controls.target.lerp(this.goal.target, FOLLOW_SPEED);
        if (this.camera.position.distanceTo(this.goal.eye) < 0.01 * this.scale) this.goal = null;
        else this.draw();
      }
      this.controls.update();
      this.render(this.speed * FRAME_BUDGET_MS);
      clearTimeout(this.calming);
      this.calming = setTimeout(() => {
        this.render(Infinity);
        this.isCalm = true;
      }, IDLE_DELAY_MS);
    });
  }

  /** Draw at most so many points, the same share of every frame's, and measure how long it takes. */
  render(mostPoints) {
    const all = this.numPoints;
    const share = Math.min(mostPoints / Math.max(all, 1), 1);
    for (const { points, num } of this.frames) points.geometry.setDrawRange(0, Math.ceil(share * num));
    const begun = performance.now();
    this.renderer.render(this.scene, this.camera);
    const gl = this.renderer.getContext();
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)); // waits for the graphics
    const speed = (share * all) / Math.max(performance.now() - begun, 0.5);
    if (share * all > 10_000) this.speed = 0.5 * this.speed + 0.5 * speed;
  }
}

/** Centre and viewing direction of a camera-from-world matrix [R | t], in rows: C = -Rᵀt, forward = the third row. */
function poseOf(m) {
  const turn = (v) => [0, 1, 2].map((k) => m[k] * v[0] + m[4 + k] * v[1] + m[8 + k] * v[2]); // Rᵀv
  return { center: turn([-m[3], -m[7], -m[11]]), forward: turn([0, 0, 1]), turn };
}

function frustum({ pose, intrinsics: k, size: [height, width] }, depth) {
  const corners = [[0, 0], [width, 0], [width, height], [0, height]].map(([x, y]) =>
    pose.turn([((x - k[2]) / k[0]) * depth, ((y - k[5]) / k[4]) * depth, depth]).map((v, i) => v + pose.center[i]));
  return [pose.center, ...corners];
}

function addFrustum(vertices, colors, [apex, ...corners], color) {
  corners.forEach((corner, index) => {
    vertices.push(...apex, ...corner, ...corner, ...corners[(index + 1) % 4]);
    for (let i = 0; i < 4; i++) colors.push(...color);
  });
}

function lines(parent) {
  const part = new LineSegments(new BufferGeometry(), new LineBasicMaterial({ vertexColors: true, toneMapped: false }));
  part.frustumCulled = false;
  parent.add(part);
  return part;
}

function setLines(part, vertices, colors) {
  part.geometry.dispose();
  part.geometry = new BufferGeometry();
  part.geometry.setAttribute("position", new BufferAttribute(new Float32Array(vertices), 3));
  part.geometry.setAttribute("color", new BufferAttribute(new Float32Array(colors), 3));
  part.visible = vertices.length > 0;
}

function medianDistance(points, center) {
  const distances = [];
  for (let i = 0; i + 2 < Math.min(points.length, 6000); i += 3) {
    distances.push(Math.hypot(points[i] - center[0], points[i + 1] - center[1], points[i + 2] - center[2]));
  }
  return distances.sort((a, b) => a - b)[distances.length >> 1];
}

/** Blue at the start, over green, to orange at the end. */
function timeColor(t) {
  return [0.15 + 0.75 * t, 0.55 + 0.15 * Math.sin(Math.PI * t), 0.95 - 0.8 * t];
}

const HUES = [[1, 0.3, 0.3], [0.3, 0.9, 0.4], [0.35, 0.6, 1], [1, 0.8, 0.2], [0.9, 0.4, 1], [0.2, 0.9, 0.9], [1, 0.55, 0.15]];

export const trackColor = (number) => HUES[number % HUES.length];
