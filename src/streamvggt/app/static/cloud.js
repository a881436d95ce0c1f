// The scene in 3D: a point cloud and a camera per frame, meshes and tracks. Renders only after changes. While the view
// moves, it renders as many points as the graphics can in time. The rest follows when the view is still.
// World axes are OpenCV's (x right, y down, z forward). One group turns them into three.js's (y up, z backward).

import {
  Box3, BufferAttribute, BufferGeometry, CatmullRomCurve3, Color, ColorManagement, Group, Line, LinearSRGBColorSpace,
  LineBasicMaterial, LineSegments, MeshNormalMaterial, OrbitControls, PerspectiveCamera, Plane, Points, PointsMaterial,
  DoubleSide, Raycaster, Scene, Vector2, Vector3, WebGLRenderer,
} from "../../viewer/three.min.js";
import { createMesh, meshPositions, setTriangles } from "./mesh.js";

const MAX_SCENE_POINTS = 1_200_000; // approximate maximum, as in packet.py
const PERCENTILE_SAMPLE = 50_000; // number of points for the percentile of the confidence
const FOLLOW_SPEED = 0.15; // fraction of the distance per image
const FRAME_BUDGET_MS = 30; // while the view moves
const MIN_FRACTION = 0.01; // of the points, while the view moves
const IDLE_DELAY_MS = 300; // without a change, until all points are drawn
const MAX_POINT_SIZE = 32; // pixels
const PICK_RADIUS = 10; // pixels
const CEILING = 0.15; // of the scene's scale above the highest camera, hidden in the view from above
const PATH_POSES = 40; // of the fly-through
const CURRENT_COLOR = "#ff7319"; // of the camera of the frame shown
const MARK = { color: "#ff3380", depthTest: false, transparent: true }; // of measured points, in front of all others

ColorManagement.enabled = false; // show colors as stored

export class Cloud {
  constructor(canvas) {
    this.canvas = canvas;
    this.renderer = new WebGLRenderer({ canvas, antialias: false, powerPreference: "high-performance" });
    this.renderer.outputColorSpace = LinearSRGBColorSpace;
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio, 1.5));
    this.scene = new Scene();
    this.camera = new PerspectiveCamera(55, 1, 0.01, 1000);
    this.controls = new OrbitControls(this.camera, canvas);
    this.controls.enableDamping = true;
    this.controls.addEventListener("change", () => this.draw());
    this.world = new Group();
    this.world.rotation.x = Math.PI;
    this.material = pointMaterial({ vertexColors: true });
    this.normals = new MeshNormalMaterial({ flatShading: true, side: DoubleSide });
    this.cameras = new LineSegments(new BufferGeometry(), new LineBasicMaterial({ vertexColors: true }));
    this.trajectory = new Line(new BufferGeometry(), new LineBasicMaterial({ color: "#8c8c99" }));
    this.marks = new Line(new BufferGeometry(), new LineBasicMaterial(MARK));
    this.marks.add(new Points(new BufferGeometry(), pointMaterial({ ...MARK, size: 9, sizeAttenuation: false })));
    this.scene.add(this.world.add(this.cameras, this.trajectory, this.marks));
    this.ceiling = new Plane(new Vector3(0, -1, 0));
    this.frames = [];
    this.scale = this.spacing = 1; // median distance of the points of the first frame, and the distance between them
    this.goal = null;
    this.fullTime = 0; // milliseconds to draw all points, as measured lately
    this.isCalm = true; // all points are drawn
    this.drawsAll = false; // also while the view moves
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
    this.resize();
  }

  clear() {
    this.frames.forEach(({ points, camera, segments }) => [points, camera, segments].forEach(remove));
    this.frames = [];
    [this.cameras, this.trajectory].forEach((part) => setVertices(part, []));
    this.mark([]);
  }

  /** Add the frame of a packet. */
  add(packet) {
    const points = new Points(new BufferGeometry(), this.material);
    const camera = new Group(); // in the axes of the camera: its mesh
    const matrix = camera.matrix.set(...packet.cam_from_world, 0, 0, 0, 1).invert();
    matrix.decompose(camera.position, camera.quaternion, camera.scale);
    const segments = trackSegments(this.frames.at(-1)?.tracks ?? [], packet.tracks);
    this.world.add(points, camera, segments);
    this.frames.push({ ...packet, points, camera, segments, edges: cameraEdges(packet), mesh: null });
    this.setPoints(this.frames.length - 1, packet);
    this.releasePoints();
    if (this.frames.length > 1) return;
    this.scale = packet.distance || 1;
    this.spacing = packet.spacing;
    [this.camera.near, this.camera.far] = [this.scale / 100, this.scale * 200];
    this.setView("first");
  }

  /** Set the points of a frame, also to those of another source. */
  setPoints(position, { points, colors, conf, marks }) {
    const frame = this.frames[position];
    frame.points.geometry.dispose();
    frame.points.geometry = new BufferGeometry();
    frame.points.geometry.setAttribute("position", new BufferAttribute(points, 3));
    frame.points.geometry.setAttribute("color", new BufferAttribute(colors, 3, true));
    frame.points.geometry.setIndex(new BufferAttribute(new Uint16Array(conf.length), 1)); // of the drawn points
    Object.assign(frame, { colors, conf, marks, num: 0 });
    this.shown = null;
  }

  /** Release points that are never drawn again, because all frames share the maximum. */
  releasePoints() {
    const most = Math.floor(MAX_SCENE_POINTS / this.frames.length);
    this.frames.forEach(({ points, colors, conf, marks }, position) => {
      if (conf.length <= 2 * most) return;
      const kept = points.geometry.attributes.position.array.slice(0, 3 * most);
      const rest = { colors: colors.slice(0, 3 * most), conf: conf.slice(0, most), marks: marks.slice(0, most) };
      this.setPoints(position, { points: kept, ...rest });
    });
  }

  /**
   * Apply the settings of the view. `range`: the first and the last position shown. `hidden`: marks (packet.py) of
   * hidden pixels. `position`: the frame shown. `cameraSize`: of the scene's scale.
   */
  show(settings) {
    this.settings = settings;
    this.material.size = (settings.size * this.spacing) / Math.tan((this.camera.fov * Math.PI) / 360);
    this.scene.background = new Color(settings.background);
    this.filter(settings);
    this.showCameras(settings);
    this.draw();
  }

  /** Draw the points and triangles that pass the filters: an equal number of points of each frame in the range. */
  filter({ surface, percentile, hidden, maxPoints, range: [first, last] }) {
    const shown = JSON.stringify([surface, percentile, hidden, maxPoints, first, last, this.frames.length]);
    if (shown === this.shown) return;
    this.shown = shown;
    const each = Math.floor(maxPoints / Math.max(this.frames.length, 1));
    this.threshold = confidencePercentile(this.frames.slice(first, last + 1), percentile, hidden);
    for (const frame of this.frames) {
      const { points, conf, marks, mesh, position } = frame;
      points.visible = surface === "points" && first <= position && position <= last;
      frame.num = 0;
      for (let at = 0; points.visible && at < Math.min(each, conf.length); at++) {
        if (conf[at] >= this.threshold && !(marks[at] & hidden)) points.geometry.index.array[frame.num++] = at;
      }
      points.geometry.index.needsUpdate = true;
      if (mesh) setTriangles(mesh, this.threshold, hidden);
    }
  }

  /** Remove the meshes that the settings do not show. Return the frames whose meshes are missing. */
  updateMeshes() {
    const positions = this.settings.surface === "points" ? [] : meshPositions(this.settings.range);
    for (const frame of this.frames.filter(({ mesh }) => mesh)) {
      frame.mesh.material = this.settings.surface === "normals" ? this.normals : frame.mesh.textured;
      if (positions.includes(frame.position)) continue;
      remove(frame.mesh);
      frame.mesh = null;
    }
    return positions.map((position) => this.frames[position]).filter((frame) => frame && !frame.mesh);
  }

  /** Add the mesh of a frame. Arguments as for `createMesh`. */
  addMesh(frame, values, step) {
    frame.mesh = createMesh(frame, values, step, () => this.draw());
    frame.camera.add(frame.mesh);
    setTriangles(frame.mesh, this.threshold, this.settings.hidden);
    this.updateMeshes();
  }

  showCameras({ cameras, tracks, position, cameraSize }) {
    const [vertices, colors] = [[], []];
    this.frames.forEach(({ camera, edges, segments }, index) => {
      const isCurrent = index === position;
      const size = cameraSize * this.scale * (isCurrent ? 1.6 : 1);
      const age = index / Math.max(this.frames.length - 1, 1);
      const color = new Color(isCurrent ? CURRENT_COLOR : timeColor(age)).toArray();
      colors.push(...edges.flatMap(() => color));
      vertices.push(...edges.flatMap((end) => end.clone().multiplyScalar(size).applyMatrix4(camera.matrix).toArray()));
      segments.visible = tracks && index <= position && segments.geometry.attributes.position.count > 0;
    });
    setVertices(this.cameras, cameras ? vertices : [], colors);
    setVertices(this.trajectory, cameras ? this.frames.flatMap(({ camera }) => camera.position.toArray()) : []);
  }

  /** View from behind the first camera ("first"), from above without the ceiling ("top"), or turning ("orbit"). */
  setView(name) {
    this.goal = null;
    this.controls.autoRotate = name === "orbit";
    if (name !== "orbit") this.renderer.clippingPlanes = name === "top" ? [this.ceiling] : [];
    if (name === "first" && this.frames.length) this.look(this.behind(this.frames[0]));
    if (name === "top" && this.frames.length) this.look(this.above());
    this.draw();
  }

  look({ eye, target }) {
    this.camera.position.copy(eye);
    this.controls.target.copy(target);
    this.controls.update();
    this.draw();
  }

  /** Return the view from above the cameras and what they view, and set the ceiling. */
  above() {
    const ends = [new Vector3(), new Vector3(0, 0, 2 * this.scale)];
    const places = this.frames.flatMap(({ camera }) => ends.map((end) => camera.localToWorld(end.clone())));
    const box = new Box3().setFromPoints(places);
    const [target, size] = [box.getCenter(new Vector3()), box.getSize(new Vector3())];
    const height = 1.2 * Math.max(size.z, size.x / this.camera.aspect);
    this.ceiling.constant = CEILING * this.scale - Math.min(...this.frames.map(({ camera }) => camera.position.y));
    return { target, eye: target.clone().add(new Vector3(0, height, 0.001 * height)) };
  }

  /** Return the view from behind the camera of a frame. */
  behind({ camera }) {
    const place = (...xyz) => camera.localToWorld(new Vector3(...xyz).multiplyScalar(this.scale));
    return { eye: place(0, -0.18, -0.45), target: place(0, 0, 0.8) };
  }

  /** Glide to the view from behind a frame's camera. */
  flyTo(position) {
    this.controls.autoRotate = false;
    this.goal = this.behind(this.frames[position]);
    this.draw();
  }

  /** Return a smooth path behind the cameras: a function of time in [0, 1] for `look`. */
  flightPath() {
    const step = Math.ceil(this.frames.length / PATH_POSES);
    const poses = this.frames.filter(({ position }) => position % step === 0).map((frame) => this.behind(frame));
    const curve = (places) => new CatmullRomCurve3([places[0], ...places], false, "centripetal");
    const [eyes, targets] = [curve(poses.map(({ eye }) => eye)), curve(poses.map(({ target }) => target))];
    return (time) => ({ eye: eyes.getPoint(time), target: targets.getPoint(time) });
  }

  /** Return the drawn point nearest to a position in CSS pixels, or null: {world, frame, depth, conf}. */
  pick(x, y) {
    const { width, height } = this.canvas.getBoundingClientRect();
    const pixel = (2 * Math.tan((this.camera.fov * Math.PI) / 360)) / height; // size at distance 1
    const ray = new Raycaster();
    ray.setFromCamera(new Vector2((2 * x) / width - 1, 1 - (2 * y) / height), this.camera);
    ray.params.Points.threshold = PICK_RADIUS * pixel * 4 * this.scale;
    this.limitPoints(1);
    const shown = this.frames.map(({ points }) => points).filter((points) => points.visible);
    const offset = (hit) => hit.distanceToRay / hit.distance / pixel;
    const cost = (hit) => hit.distance * (1 + offset(hit) ** 2 / 50); // near the eye, and near the cursor
    const isCut = (hit) => this.renderer.clippingPlanes.some((plane) => plane.distanceToPoint(hit.point) < 0);
    const hits = ray.intersectObjects(shown).filter((hit) => offset(hit) < PICK_RADIUS && !isCut(hit));
    if (!hits.length) return null;
    const { object, index } = hits.reduce((best, hit) => (cost(hit) < cost(best) ? hit : best));
    const frame = this.frames.find(({ points }) => points === object);
    const world = new Vector3().fromBufferAttribute(object.geometry.attributes.position, index);
    const { z: depth } = world.clone().applyMatrix4(frame.camera.matrix.clone().invert());
    return { world, frame, depth, conf: frame.conf[index] };
  }

  /** Mark picked points, with a line between two. */
  mark(worlds) {
    setVertices(this.marks, worlds.flatMap((world) => world.toArray()));
    this.marks.children[0].geometry = this.marks.geometry;
    this.draw();
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
      this.render(this.drawsAll ? 1 : Math.max(MIN_FRACTION, Math.min(FRAME_BUDGET_MS / this.fullTime, 1)));
      clearTimeout(this.calming);
      this.calming = setTimeout(() => {
        this.render(1);
        this.isCalm = true;
      }, IDLE_DELAY_MS);
    });
  }

  /** Draw a fraction of the points of each frame, and measure the time. */
  render(fraction) {
    this.limitPoints(fraction);
    const begun = performance.now();
    this.renderer.render(this.scene, this.camera);
    const gl = this.renderer.getContext();
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)); // waits for the graphics
    this.fullTime = (this.fullTime + (performance.now() - begun) / fraction) / 2;
  }

  limitPoints(fraction) {
    for (const { points, num } of this.frames) points.geometry.setDrawRange(0, Math.ceil(fraction * num));
  }
}

/** three.js's material for points, with round points of limited size. */
function pointMaterial(options) {
  const material = new PointsMaterial(options);
  material.onBeforeCompile = (shader) => {
    const limit = `gl_PointSize = clamp(gl_PointSize, 1.0, ${MAX_POINT_SIZE}.0);`;
    const round = "if (length(gl_PointCoord - 0.5) > 0.5) discard;";
    shader.vertexShader = shader.vertexShader.replace("#include <logdepthbuf_vertex>", limit);
    shader.fragmentShader = shader.fragmentShader.replace("#include <logdepthbuf_fragment>", round);
  };
  return material;
}

/** Confidence below which `percentile` percent of the points without the marks `hidden` are, from a sample. */
function confidencePercentile(frames, percentile, hidden) {
  if (percentile === 0) return -1;
  const each = Math.ceil(PERCENTILE_SAMPLE / Math.max(frames.length, 1));
  const passing = ({ conf, marks }) => [...conf.subarray(0, each)].filter((_, at) => !(marks[at] & hidden));
  const sample = frames.flatMap(passing);
  return new Float32Array(sample).sort()[Math.floor((percentile / 100) * sample.length)] ?? -1;
}

/** Point of a pixel at a depth, in the axes of the camera. */
export const unproject = (k, x, y, depth) => [((x - k[2]) / k[0]) * depth, ((y - k[5]) / k[4]) * depth, depth];

/** Ends of the edges of a pyramid from the camera to its image at depth 1, in the axes of the camera. */
function cameraEdges({ intrinsics, image_size: [height, width] }) {
  const pixels = [[0, 0], [width, 0], [width, height], [0, height]];
  const corners = pixels.map(([x, y]) => new Vector3(...unproject(intrinsics, x, y, 1)));
  return corners.flatMap((corner, index) => [new Vector3(), corner, corner, corners[(index + 1) % 4]]);
}

/** Lines from the tracked points of a frame to those of the next. */
function trackSegments(before, after) {
  const isKnown = (track) => track?.length === 6 && track[2] > 0.5; // visible, with a world point
  const numbers = [...after.keys()].filter((number) => isKnown(before[number]) && isKnown(after[number]));
  const colors = numbers.flatMap((number) => Array(2).fill(new Color(trackColor(number)).toArray())).flat();
  const segments = new LineSegments(new BufferGeometry(), new LineBasicMaterial({ vertexColors: true }));
  setVertices(segments, numbers.flatMap((number) => [...before[number].slice(3), ...after[number].slice(3)]), colors);
  return segments;
}

function setVertices(part, vertices, colors) {
  part.geometry.dispose();
  part.geometry = new BufferGeometry();
  part.geometry.setAttribute("position", new BufferAttribute(new Float32Array(vertices), 3));
  if (colors) part.geometry.setAttribute("color", new BufferAttribute(new Float32Array(colors), 3));
}

/** Remove an object and release its memory. */
function remove(object) {
  object.traverse(({ geometry, textured }) => [geometry, textured?.map, textured].forEach((part) => part?.dispose()));
  object.removeFromParent();
}

/** Blue at the start, over green, to orange at the end. */
const timeColor = (t) => `hsl(${Math.round(215 - 180 * t)}, 75%, 55%)`;

export const trackColor = (number) => `hsl(${(number * 137) % 360}, 85%, 60%)`;
