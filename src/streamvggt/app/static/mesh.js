// Depth maps as textured meshes: a triangle grid per frame, in the axes of its camera.

import { DoubleSide, Mesh, MeshBasicMaterial, PlaneGeometry, TextureLoader } from "../../viewer/three.min.js";
import { unproject } from "./cloud.js";

const MAX_MESHES = 24; // frames at equal distances in the range shown
const MAX_COLUMNS = 160; // of a grid

/** Positions of the meshes of a range. They stay the same while the range grows, until the step doubles. */
export function meshPositions([first, last]) {
  const step = 2 ** Math.max(Math.ceil(Math.log2((last - first + 1) / MAX_MESHES)), 0);
  const [from, to] = [Math.ceil(first / step), Math.floor(last / step)];
  return Array.from({ length: to - from + 1 }, (_, index) => (from + index) * step);
}

export const gridStep = (width) => Math.ceil(width / MAX_COLUMNS);

/** Return the mesh of a frame. `values`: depth, confidence and marks of every `step`-th pixel. */
export function createMesh({ intrinsics, image_size: [height, width], picture }, values, step, onLoad) {
  const [rows, columns] = [Math.ceil(height / step), Math.ceil(width / step)];
  const count = rows * columns;
  const geometry = new PlaneGeometry(1, 1, columns - 1, rows - 1); // row by row from the top
  for (let at = 0; at < count; at++) {
    const [x, y] = [(at % columns) * step, Math.floor(at / columns) * step];
    geometry.attributes.position.setXYZ(at, ...unproject(intrinsics, x, y, values[at]));
  }
  const mesh = new Mesh(geometry);
  const map = new TextureLoader().load(picture, () => {
    mesh.visible = true;
    onLoad();
  });
  // The image is the first third of the picture.
  const [right, bottom] = [((columns - 1) * step) / width, ((rows - 1) * step) / height];
  map.repeat.set(right / 3, -bottom);
  map.offset.set(0.5 / width / 3, bottom + 0.5 / height);
  [map.flipY, map.generateMipmaps, map.minFilter] = [false, false, map.magFilter];
  const textured = new MeshBasicMaterial({ map, side: DoubleSide });
  const [depth, conf, marks] = [0, 1, 2].map((plane) => values.subarray(plane * count, (plane + 1) * count));
  return Object.assign(mesh, { visible: false, textured, triangles: geometry.index.array.slice(), depth, conf, marks });
}

/** Draw the triangles whose corners have a depth, enough confidence, and none of the marks `hidden`. */
export function setTriangles({ geometry, triangles, depth, conf, marks }, threshold, hidden) {
  const passes = (at) => depth[at] > 0 && conf[at] >= threshold && !(marks[at] & hidden);
  let num = 0;
  for (let at = 0; at < triangles.length; at += 3) {
    const corners = triangles.subarray(at, at + 3);
    if (!corners.every(passes)) continue;
    geometry.index.array.set(corners, num);
    num += 3;
  }
  geometry.index.needsUpdate = true;
  geometry.setDrawRange(0, num);
}
