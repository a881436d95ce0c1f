"""Train StreamVGGT by distillation from VGGT: accelerate launch ./train.py --config-name train"""

import hydra
from omegaconf import DictConfig

from launch import train


@hydra.main(version_base=None, config_path="../config", config_name="train")
def main(config: DictConfig) -> None:
    train(config)


if __name__ == "__main__":
    main()
