// The scene in 3D: a point cloud per frame, cameras and tracks. Renders only after changes. While the view moves, it
// renders as many points as the graphics can in time. The rest follows when the view is still.
// World axes are OpenCV's (x right, y down, z forward). One group turns them into three.js's (y up, z backward).

import {
  BufferAttribute, BufferGeometry, CatmullRomCurve3, Color, Group, LineBasicMaterial, LineSegments,
  OrbitControls, PerspectiveCamera, Points, Raycaster, Scene, ShaderMaterial, Vector2, Vector3, WebGLRenderer,
} from "../../viewer/three.min.js";
import { Surface } from "./surface.js";

export const MAX_SCENE_POINTS = 1_200_000; // approximate maximum, as in packet.py
const PERCENTILE_SAMPLE = 100_000; // number of points for the percentile of the confidence
const FOLLOW_SPEED = 0.15; // fraction of the distance per image
const FRAME_BUDGET_MS = 30; // while the view moves
const IDLE_DELAY_MS = 300; // without a change, until all points are drawn
const PICK_RADIUS = 10; // pixels
const CEILING = 0.15; // of the scene's scale above the highest camera, hidden in the view from above
const PATH_POSES = 40; // of the fly-through
const [SKY, EDGE] = [1, 2]; // marks of packet.py

const vertexShader = `
  uniform float pointSize, sceneScale, threshold, ceiling;
  uniform bool dropWhite, dropBlack, dropSky, dropEdges;
  attribute float conf;
  attribute vec4 paint;
  varying vec3 shade;
  void main() {
    vec3 rgb = floor(paint.rgb * 255.0 + 0.5);
    int marks = int(paint.a * 255.0 + 0.5);
    bool hidden = conf < threshold || position.y < ceiling
      || (dropWhite && rgb.r > 240.0 && rgb.g > 240.0 && rgb.b > 240.0)
      || (dropBlack && rgb.r + rgb.g + rgb.b < 16.0)
      || (dropSky && (marks & ${SKY}) != 0) || (dropEdges && (marks & ${EDGE}) != 0);
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
    this.world.rotation.x = Math.PI;
    this.pointGroup = new Group();
    this.surface = new Surface();
    this.scene.add(this.world.add(this.pointGroup, this.surface.group));
    const flags = { dropWhite: false, dropBlack: false, dropSky: false, dropEdges: false };
    const uniforms = { pointSize: 4, sceneScale: 1, threshold: -1, ceiling: -1e30, ...flags };
    for (const name in uniforms) uniforms[name] = { value: uniforms[name] };
    this.material = new ShaderMaterial({ vertexShader, fragmentShader, uniforms });
    [this.cameras, this.current, this.paths, this.marks] = [1, 2, 3, 4].map(() => lines(this.world));
    this.filters = { ...flags, percentile: 30, range: [0, 0] };
    this.frames = [];
    this.maxPoints = MAX_SCENE_POINTS;
    this.scale = 1;
    this.goal = null;
    this.speed = 20_000; // points per millisecond, as measured lately
    this.isCalm = true; // all points are drawn
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
    this.clear();
    this.resize();
  }

  clear() {
    for (const { points } of this.frames) {
      points.geometry.dispose();
      this.pointGroup.remove(points);
    }
    this.frames = [];
    this.sample = null;
    this.surface.clear();
    for (const part of [this.cameras, this.current, this.paths, this.marks]) setLines(part, [], []);
    this.draw();
  }

  /** Add the frame of a packet. */
  add(packet) {
    const points = new Points(new BufferGeometry(), this.material);
    points.frustumCulled = false;
    this.pointGroup.add(points);
    const pose = poseOf(packet.cam_from_world);
    this.frames.push({ points, num: 0, pose, intrinsics: packet.intrinsics, size: packet.image_size, tracks: packet.tracks });
    this.replacePoints(this.frames.length - 1, packet);
    if (this.frames.length > 1) return;
    this.scale = medianDistance(packet.points, pose.center) || 1;
    [this.camera.near, this.camera.far] = [this.scale / 100, this.scale * 200];
    this.resetView();
  }

  /** Set the points of a frame, of another source of points. */
  replacePoints(position, { points, colors, conf }) {
    const { geometry } = this.frames[position].points;
    geometry.dispose();
    geometry.boundingSphere = null;
    geometry.setAttribute("position", new BufferAttribute(points, 3));
    geometry.setAttribute("paint", new BufferAttribute(colors, 4, true));
    geometry.setAttribute("conf", new BufferAttribute(conf, 1));
    this.share();
  }

  /** Draw an equal number of points of each frame. Release points that are never drawn again. */
  share() {
    const most = Math.floor(MAX_SCENE_POINTS / Math.max(this.frames.length, 1));
    const each = Math.floor(Math.min(this.maxPoints, MAX_SCENE_POINTS) / Math.max(this.frames.length, 1));
    for (const frame of this.frames) {
      const { geometry } = frame.points;
      if (geometry.attributes.conf.count > 2 * most) {
        geometry.dispose(); // the graphics memory; three.js fills it again
        for (const [name, { array, itemSize, normalized }] of Object.entries(geometry.attributes)) {
          geometry.setAttribute(name, new BufferAttribute(array.slice(0, most * itemSize), itemSize, normalized));
        }
      }
      frame.num = Math.min(each, geometry.attributes.conf.count);
    }
    this.sample = null;
    this.draw();
  }

  /** Show what passes the filters. `range` is the first and the last position. */
  filter(changes) {
    const state = () => JSON.stringify({ ...this.filters, percentile: 0 });
    const before = state();
    Object.assign(this.filters, changes);
    if (state() !== before) this.sample = null;
    const [first, last] = this.filters.range;
    this.frames.forEach(({ points }, position) => (points.visible = position >= first && position <= last));
    const { uniforms } = this.material;
    for (const name of ["dropWhite", "dropBlack", "dropSky", "dropEdges"]) uniforms[name].value = this.filters[name];
    this.sample ??= this.confidences();
    const index = Math.floor((this.filters.percentile / 100) * this.sample.length);
    uniforms.threshold.value = this.filters.percentile > 0 && this.sample.length ? this.sample[index] : -1;
    this.surface.filter(uniforms.threshold.value);
    this.draw();
  }

  /** Sorted confidences of a sample of the points that pass the other filters. */
  confidences() {
    const visible = this.frames.filter(({ points }) => points.visible);
    const each = Math.ceil(PERCENTILE_SAMPLE / Math.max(visible.length, 1));
    const found = [];
    for (const { points, num } of visible) {
      const { conf, paint } = points.geometry.attributes;
      for (let i = 0; i < Math.min(num, each); i++) if (this.passes(paint.array, 4 * i)) found.push(conf.array[i]);
    }
    return new Float32Array(found).sort();
  }

  passes(paint, at) {
    const [red, green, blue, marks] = paint.subarray(at, at + 4);
    const { dropWhite, dropBlack, dropSky, dropEdges } = this.filters;
    return !(dropWhite && red > 240 && green > 240 && blue > 240) && !(dropBlack && red + green + blue < 16)
      && !(dropSky && marks & SKY) && !(dropEdges && marks & EDGE);
  }

  /** Point size that closes the gaps of the first frame, seen from behind its camera. */
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

  setMaxPoints(number) {
    this.maxPoints = number;
    this.share();
  }

  setBackground(color) {
    this.scene.background = new Color(color);
    this.draw();
  }

  /** Draw all cameras, the one at `position` brighter, and the tracks up to it. `size`: of the scene's scale. */
  showCameras({ cameras, tracks, position, size }) {
    const [vertices, colors, own, ownColors, paths, pathColors] = [[], [], [], [], [], []];
    this.frames.forEach((frame, index) => {
      if (!cameras) return;
      const corners = frustum(frame, size * this.scale * (index === position ? 1.6 : 1));
      if (index === position) addFrustum(own, ownColors, corners, [1, 0.45, 0.1]);
      else addFrustum(vertices, colors, corners, timeColor(index / Math.max(this.frames.length - 1, 1)));
      if (index === 0) return;
      vertices.push(...this.frames[index - 1].pose.center, ...frame.pose.center);
      colors.push(0.55, 0.55, 0.6, 0.55, 0.55, 0.6);
    });
    for (let index = 1; tracks && index <= position && index < this.frames.length; index++) {
      this.frames[index].tracks.forEach((track, number) => {
        const ends = [this.frames[index - 1].tracks[number] ?? [], track];
        if (ends.some((end) => end.length < 6 || end[2] < 0.5)) return; // unknown or hidden
        paths.push(...ends.flatMap((end) => end.slice(3, 6)));
        pathColors.push(...trackColor(number), ...trackColor(number));
      });
    }
    setLines(this.cameras, vertices, colors);
    setLines(this.current, own, ownColors);
    setLines(this.paths, paths, pathColors);
    this.draw();
  }

  /** Show the scene from behind the first camera ("first"), from above without ceiling ("top"), or turning ("orbit"). */
  setView(name) {
    this.goal = null;
    this.controls.autoRotate = name === "orbit";
    if (name !== "orbit") this.material.uniforms.ceiling.value = -1e30;
    if (!this.frames.length || !["first", "top"].includes(name)) return this.draw();
    if (name === "top") {
      const [x, y, z] = this.extent();
      const target = new Vector3(x.middle, -y.middle, -z.middle);
      const height = 1.5 * Math.max(z.size, x.size / this.camera.aspect) + y.size / 2;
      const highest = Math.min(...this.frames.map(({ pose }) => pose.center[1]));
      this.material.uniforms.ceiling.value = highest - CEILING * this.scale;
      this.look({ target, eye: target.clone().add(new Vector3(0, height, 0.001 * height)) });
    } else this.look(this.behind(this.frames[0]));
  }

  /** Middle and size of the cloud along each world axis, without the outermost points. */
  extent() {
    const sample = this.frames.flatMap(({ points }) => [...points.geometry.attributes.position.array.subarray(0, 300)]);
    return [0, 1, 2].map((axis) => {
      const sorted = sample.filter((_, i) => i % 3 === axis).sort((a, b) => a - b);
      const [low, high] = [0.05, 0.95].map((part) => sorted[Math.floor(part * (sorted.length - 1))] ?? 0);
      return { middle: (low + high) / 2, size: high - low };
    });
  }

  resetView() {
    this.setView("first");
  }

  look({ eye, target }) {
    this.camera.position.copy(eye);
    this.controls.target.copy(target);
    this.controls.update();
    this.draw();
  }

  /** Glide to the view from behind a frame's camera. */
  flyTo(position) {
    if (!this.frames[position]) return;
    this.controls.autoRotate = false;
    this.goal = this.behind(this.frames[position]);
    this.draw();
  }

  /** Return a smooth path behind the cameras: a function of time in [0, 1] for `look`. */
  flightPath() {
    const step = Math.max(this.frames.length / PATH_POSES, 1);
    const poses = [];
    for (let at = 0; at < this.frames.length; at += step) poses.push(this.behind(this.frames[Math.floor(at)]));
    if (poses.length === 1) return () => poses[0];
    const curve = (name) => new CatmullRomCurve3(poses.map((pose) => pose[name]), false, "centripetal");
    const [eyes, targets] = [curve("eye"), curve("target")];
    return (time) => ({ eye: eyes.getPoint(time), target: targets.getPoint(time) });
  }

  behind({ pose }) {
    const flip = ([x, y, z]) => new Vector3(x, -y, -z);
    const [center, forward] = [flip(pose.center), flip(pose.forward)];
    const eye = center.clone().addScaledVector(forward, -0.45 * this.scale).add(new Vector3(0, 0.18 * this.scale, 0));
    return { eye, target: center.addScaledVector(forward, 0.8 * this.scale) };
  }

  /** Return the drawn point nearest to a position of the canvas in CSS pixels, or null: {world, position, conf}. */
  pick(x, y) {
    const { width, height } = this.canvas.getBoundingClientRect();
    const ray = new Raycaster();
    this.camera.updateMatrixWorld();
    ray.setFromCamera(new Vector2((2 * x) / width - 1, 1 - (2 * y) / height), this.camera);
    const pixel = (2 * Math.tan((this.camera.fov * Math.PI) / 360)) / height; // size at distance 1
    ray.params.Points.threshold = PICK_RADIUS * pixel * 4 * this.scale;
    let [best, bestCost] = [null, Infinity];
    this.frames.forEach(({ points, num }, position) => {
      if (!points.visible) return;
      points.geometry.setDrawRange(0, num);
      const { conf, paint, position: world } = points.geometry.attributes;
      for (const { distance, distanceToRay, index } of ray.intersectObject(points)) {
        const off = distanceToRay / distance / pixel;
        const cost = distance * (1 + (off * off) / 50); // near the eye, and near the cursor
        if (off > PICK_RADIUS || cost >= bestCost || conf.array[index] < this.material.uniforms.threshold.value) continue;
        if (!this.passes(paint.array, 4 * index)) continue;
        if (world.array[3 * index + 1] < this.material.uniforms.ceiling.value) continue;
        best = { world: [...world.array.subarray(3 * index, 3 * index + 3)], position, conf: conf.array[index] };
        bestCost = cost;
      }
    });
    return best;
  }

  /** Depth of a world point along the optical axis of a frame's camera. */
  depthFrom(position, world) {
    const { center, forward } = this.frames[position].pose;
    return forward.reduce((sum, value, axis) => sum + value * (world[axis] - center[axis]), 0);
  }

  /** Mark picked points, and the line between two. */
  mark(worlds) {
    const arm = 0.02 * this.scale;
    const vertices = worlds.flatMap(([x, y, z]) => [
      x - arm, y, z, x + arm, y, z, x, y - arm, z, x, y + arm, z, x, y, z - arm, x, y, z + arm,
    ]);
    if (worlds.length === 2) vertices.push(...worlds.flat());
    setLines(this.marks, vertices, vertices.map((_, i) => [1, 0.2, 0.5][i % 3]));
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

  /** Request an image. Several requests before it result in one image. */
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
      if (this.controls.autoRotate) this.draw();
      this.controls.update();
      this.render(this.speed * FRAME_BUDGET_MS);
      clearTimeout(this.calming);
      this.calming = setTimeout(() => {
        this.render(Infinity);
        this.isCalm = true;
      }, IDLE_DELAY_MS);
    });
  }

  /** Draw at most `mostPoints` points, an equal fraction of each frame, and measure the time. */
  render(mostPoints) {
    const all = this.pointGroup.visible ? this.numPoints : 0;
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

/** Center and viewing direction of a camera-from-world matrix [R | t], in rows. `turn` multiplies by Rᵀ. */
function poseOf(m) {
  const turn = (v) => [0, 1, 2].map((k) => m[k] * v[0] + m[4 + k] * v[1] + m[8 + k] * v[2]);
  return { center: turn([-m[3], -m[7], -m[11]]), forward: turn([0, 0, 1]), turn };
}

/** World point of a pixel at a depth. */
export function unproject({ pose, intrinsics: k }, x, y, depth) {
  return pose.turn([((x - k[2]) / k[0]) * depth, ((y - k[5]) / k[4]) * depth, depth]).map((v, i) => v + pose.center[i]);
}

function frustum(frame, depth) {
  const [height, width] = frame.size;
  const corners = [[0, 0], [width, 0], [width, height], [0, height]].map(([x, y]) => unproject(frame, x, y, depth));
  return [frame.pose.center, ...corners];
}

function addFrustum(vertices, colors, [apex, ...corners], color) {
  corners.forEach((corner, index) => {
    vertices.push(...apex, ...corner, ...corner, ...corners[(index + 1) % 4]);
    colors.push(...color, ...color, ...color, ...color);
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

/** Blue at the start, green, orange at the end. */
const timeColor = (t) => [0.15 + 0.75 * t, 0.55 + 0.15 * Math.sin(Math.PI * t), 0.95 - 0.8 * t];

const HUES = [[1, 0.3, 0.3], [0.3, 0.9, 0.4], [0.35, 0.6, 1], [1, 0.8, 0.2], [0.9, 0.4, 1], [0.2, 0.9, 0.9], [1, 0.55, 0.15]];

export const trackColor = (number) => HUES[number % HUES.length];
