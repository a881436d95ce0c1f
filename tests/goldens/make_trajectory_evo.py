"""Writes trajectory_evo.json: what evo 1.38.1 says of a made-up trajectory. `pip install evo`, then run this.

ATE and RPE as in evaluations of camera trajectories: similarity alignment, all steps of one frame, root mean squares.
"""

import copy
import json
from pathlib import Path

import numpy as np
from evo.core.metrics import APE, RPE, PoseRelation, Unit
from evo.core.trajectory import PosePath3D
from scipy.spatial.transform import Rotation

random = np.random.default_rng(0)
turns = Rotation.from_rotvec(random.normal(0, 0.2, (12, 3)))
true = np.tile(np.eye(4), (12, 1, 1))
true[:, :3, :3], true[:, :3, 3] = turns.as_matrix(), random.normal(0, 1, (12, 3)).cumsum(0)
estimated = np.tile(np.eye(4), (12, 1, 1))
world = Rotation.from_rotvec([0.3, -1.0, 2.0])
estimated[:, :3, :3] = (world * turns * Rotation.from_rotvec(random.normal(0, 0.05, (12, 3)))).as_matrix()
estimated[:, :3, 3] = 0.4 * world.apply(true[:, :3, 3] + random.normal(0, 0.1, (12, 3))) + [1.0, 2.0, -3.0]

reference, ours = PosePath3D(poses_se3=list(true)), PosePath3D(poses_se3=list(estimated))
ours = copy.deepcopy(ours)
ours.align(reference, correct_scale=True)


def rmse(metric) -> float:
    metric.process_data((reference, ours))
    return float(metric.get_all_statistics()["rmse"])


steps = {"delta": 1, "delta_unit": Unit.frames, "all_pairs": True}
content = {
    "true_world_from_cam": true.tolist(),
    "estimated_world_from_cam": estimated.tolist(),
    "ate": rmse(APE(PoseRelation.translation_part)),
    "rpe_translation": rmse(RPE(PoseRelation.translation_part, **steps)),
    "rpe_rotation": rmse(RPE(PoseRelation.rotation_angle_deg, **steps)),
}
Path(__file__).with_name("trajectory_evo.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
