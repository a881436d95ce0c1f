// Depth maps as textured meshes: a triangle grid per frame, without triangles across depth discontinuities.

import {
  BufferAttribute, BufferGeometry, DoubleSide, Group, Mesh, MeshBasicMaterial, MeshNormalMaterial, Texture,
} from "../../viewer/three.min.js";
import { unproject } from "./cloud.js";

const MAX_MESHES = 24; // frames at equal distances in the range shown
const MAX_COLUMNS = 160; // of a grid
const EDGE_RATIO = 1.12; // larger ratios of neighboring depths are discontinuities

/** Positions of the meshes of a range. */
export function meshPositions([first, last]) {
  const step = Math.max((last - first + 1) / MAX_MESHES, 1);
  const positions = [];
  for (let at = first; at <= last; at += step) positions.push(Math.floor(at));
  return positions;
}

export const gridStep = (width) => Math.ceil(width / MAX_COLUMNS);

export class Surface {
  constructor() {
    this.group = new Group();
    this.meshes = new Map(); // by position
    this.normals = new MeshNormalMaterial({ flatShading: true, side: DoubleSide });
    this.threshold = -1;
  }

  clear() {
    for (const position of [...this.meshes.keys()]) this.remove(position);
  }

  remove(position) {
    const mesh = this.meshes.get(position);
    mesh.geometry.dispose();
    mesh.textured.map.dispose();
    mesh.textured.dispose();
    this.group.remove(mesh);
    this.meshes.delete(position);
  }

  /** Add the mesh of a frame. `values`: depth, then confidence, every `step` pixels. `bitmap`: image strip of packet.py. */
  add(position, frame, values, step, bitmap) {
    if (this.meshes.has(position)) return;
    const [height, width] = frame.size;
    const [rows, columns] = [Math.ceil(height / step), Math.ceil(width / step)];
    const [vertices, uvs] = [[], []];
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        vertices.push(...unproject(frame, x * step, y * step, values[y * columns + x]));
        uvs.push((x * step + 0.5) / width / 3, (y * step + 0.5) / height);
      }
    }
    const map = new Texture(bitmap);
    [map.flipY, map.generateMipmaps, map.colorSpace, map.needsUpdate] = [false, false, "srgb", true];
    map.minFilter = map.magFilter;
    const mesh = new Mesh(new BufferGeometry());
    mesh.geometry.setAttribute("position", new BufferAttribute(new Float32Array(vertices), 3));
    mesh.geometry.setAttribute("uv", new BufferAttribute(new Float32Array(uvs), 2));
    mesh.textured = new MeshBasicMaterial({ map, side: DoubleSide });
    mesh.frustumCulled = false;
    Object.assign(mesh, { values, rows, columns });
    this.meshes.set(position, mesh);
    this.group.add(mesh);
    this.index(mesh);
  }

  /** Show only the meshes of these positions, with the image or with normals as colors. */
  show(positions, hasNormals) {
    for (const position of [...this.meshes.keys()]) if (!positions.includes(position)) this.remove(position);
    for (const mesh of this.meshes.values()) mesh.material = hasNormals ? this.normals : mesh.textured;
  }

  filter(threshold) {
    if (threshold === this.threshold) return;
    this.threshold = threshold;
    for (const mesh of this.meshes.values()) this.index(mesh);
  }

  /** Set the triangles: valid depth, sufficient confidence, no discontinuity. */
  index({ geometry, values, rows, columns }) {
    const triangles = [];
    const add = (...corners) => {
      const depths = corners.map((at) => values[at]);
      const conf = Math.min(...corners.map((at) => values[rows * columns + at]));
      const near = Math.min(...depths);
      if (near > 0 && conf >= this.threshold && Math.max(...depths) < EDGE_RATIO * near) triangles.push(...corners);
    };
    for (let y = 0; y + 1 < rows; y++) {
      for (let x = 0; x + 1 < columns; x++) {
        const at = y * columns + x;
        add(at, at + columns, at + 1);
        add(at + 1, at + columns, at + columns + 1);
      }
    }
    geometry.setIndex(triangles);
  }
}
