"""Train StreamVGGT by distillation from VGGT: accelerate launch ./train.py --config-name train"""

from streamvggt.cli.training import main

if __name__ == "__main__":
    main("train")
