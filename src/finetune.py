"""Fine-tune VGGT, or train it: accelerate launch ./finetune.py --config-name finetune"""

import hydra
from omegaconf import DictConfig, OmegaConf


@hydra.main(version_base=None, config_path="../config", config_name="finetune")
def main(config: DictConfig) -> None:
    trainer = hydra.utils.instantiate(config.trainer, _convert_="all")
    trainer.keep_config(OmegaConf.to_yaml(config, resolve=True))
    trainer.run()


if __name__ == "__main__":
    main()
