"""Fine-tune or train VGGT: accelerate launch ./finetune.py --config-name finetune"""

from streamvggt.cli.training import main

if __name__ == "__main__":
    main("finetune")
