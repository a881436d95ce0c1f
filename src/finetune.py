"""Fine-tune or train VGGT: accelerate launch ./finetune.py --config-name finetune"""

import hydra
from omegaconf import DictConfig

from launch import train


@hydra.main(version_base=None, config_path="../config", config_name="finetune")
def main(config: DictConfig) -> None:
    train(config)


if __name__ == "__main__":
    main()
