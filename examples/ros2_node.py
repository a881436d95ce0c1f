"""ROS 2 node: camera images in, poses and depth maps out. Documented in docs/webcam-and-robots.md."""

import numpy as np
import rclpy
import torch
from cv_bridge import CvBridge
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from streamvggt import FrameDiversity, StreamSession, load_model
from streamvggt.geometry.rotation import quaternion_from_matrix
from streamvggt.stream.frames import frame_from_array


class StreamNode(Node):
    def __init__(self):
        super().__init__("streamvggt")
        weights = self.declare_parameter("weights", "lch01/StreamVGGT").value
        device = self.declare_parameter("device", "cuda" if torch.cuda.is_available() else "cpu").value
        model = load_model(weights, device=device, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
        self.sizes = {"size": model.config.image_size, "patch_size": model.patch_size}
        self.session = StreamSession(model, policy=FrameDiversity(9))
        self.bridge = CvBridge()
        self.poses = self.create_publisher(PoseStamped, "pose", 10)
        self.depths = self.create_publisher(Image, "depth", 10)
        self.create_subscription(Image, "image", self.on_image, qos_profile_sensor_data)  # drops images while busy

    def on_image(self, message):
        rgb = self.bridge.imgmsg_to_cv2(message, "rgb8")
        prediction = self.session.push(frame_from_array(rgb, **self.sizes))
        world_from_cam = prediction.cameras().world_from_cam[0, 0].double().cpu()  # (3, 4)
        pose = PoseStamped()
        pose.header.stamp, pose.header.frame_id = message.header.stamp, "map"
        quaternion = quaternion_from_matrix(world_from_cam[:, :3]).tolist()
        for name, value in zip("xyzw", quaternion, strict=True):
            setattr(pose.pose.orientation, name, value)
        for name, value in zip("xyz", world_from_cam[:, 3].tolist(), strict=True):
            setattr(pose.pose.position, name, value)
        self.poses.publish(pose)
        depth = prediction.depth[0, 0, ..., 0].float().cpu().numpy().astype(np.float32)
        self.depths.publish(self.bridge.cv2_to_imgmsg(depth, "32FC1", header=message.header))


if __name__ == "__main__":
    rclpy.init()
    rclpy.spin(StreamNode())
