"""Every shipped training config, on two processes: it starts, takes its steps and ends."""

import json
import traceback
from pathlib import Path

import pytest
import torch
from launching import SMALL
from own_scenes import world_clips, write_transforms
from processes import run_together
from small_models import TINY

from streamvggt import VGGT, load_model

CONFIGS = Path(__file__).parents[2] / "config"
RECIPES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def overrides(recipe: str, folder: Path, data: dict[str, Path]) -> list[str]:
    """Toy sizes, and where the toy data and weights lie."""
    places = [f"ckpt_dir={folder}", f"teacher_weights={folder}/model.pt", f"output_dir={folder}/out/{recipe}"]
    places += [f"data_root={data['all']}"]
    if "tiny" in recipe:
        places += [f"rendered={data['rendered']}"]
    if recipe == "finetune_tiny_long":  # from the bundled network, whose patches have 16 pixels
        return [*places, *SMALL, "model.name_or_path=tiny-vggt", "size=32", "patch_size=16"]
    if recipe.startswith("finetune_tiny"):
        places += ["xfeat_weights=null", "model.embed_dim=48", "model.camera_num_heads=2"]
    if recipe.endswith("_own"):
        places += [f"data.path={folder}/own", f"data.validation_path={folder}/own", "data.samples_per_epoch=9"]
    return [*places, *SMALL]


def train_all(rank: int, folder: Path, data: dict[str, Path]) -> None:
    """What `accelerate launch --num_processes 2` has each process do, for one config after the other."""
    import hydra
    from accelerate.state import AcceleratorState
    from omegaconf import OmegaConf

    for recipe in RECIPES:
        error = None
        try:
            with hydra.initialize_config_dir(str(CONFIGS), version_base=None):
                config = hydra.compose(recipe, overrides(recipe, folder, data))
            trainer = hydra.utils.instantiate(config.trainer, _convert_="all")
            assert trainer.accelerator.num_processes == 2
            trainer.log.save_config(OmegaConf.to_yaml(config, resolve=True))
            trainer.run()
        except Exception:
            error = traceback.format_exc()
        (folder / f"{recipe}-{rank}.json").write_text(json.dumps(error), encoding="utf-8")
        AcceleratorState._reset_state()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_root, rendered) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    torch.manual_seed(0)
    network = VGGT(**TINY)
    torch.save(
        {"model": network.state_dict(), "config": {"model_type": "streamvggt", **network.config.as_dict()}},
        folder / "model.pt",
    )
    (folder / "checkpoints.pth").symlink_to(folder / "model.pt")
    write_transforms(folder / "own", world_clips(1, 4, 60, 80, fov=1.2)[0])
    run_together(train_all, folder, {"all": data_root, "rendered": rendered})
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_shipped_config_trains_on_two_processes(trained, recipe):
    for rank in (0, 1):
        error = json.loads((trained / f"{recipe}-{rank}.json").read_text(encoding="utf-8"))
        assert error is None, f"process {rank}: {error}"
    lines = (trained / "out" / recipe / "log.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line) for line in lines if "train/loss" in line]
    assert steps[-1]["step"] == 2 and steps[-1]["train/grad_norm"] > 0
    assert load_model(trained / "out" / recipe / "final").causal is ("finetune" not in recipe)
