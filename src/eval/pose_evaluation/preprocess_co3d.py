"""Annotations for the evaluation of poses; `streamvggt data prepare co3d_annotations` with the published flags.

python eval/pose_evaluation/preprocess_co3d.py --category all --co3d_v2_dir ../data/co3d_v2 \\
    --output_dir ../data/co3d_v2_annotations
"""

import argparse

from tqdm import tqdm

from streamvggt.datasets._co3d_download import MIN_QUALITY
from streamvggt.datasets._prepare import SkipScene
from streamvggt.datasets.co3d_annotations import SUBSETS, raw_scenes, write_category
from streamvggt.evaluation.jobs import run_main
from streamvggt.flags import real, some_path, word


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--category", type=word, default="all", help="one category, or all of the download (default)")
    parser.add_argument("--co3d_v2_dir", type=some_path, required=True, help="the download")
    parser.add_argument("--output_dir", type=some_path, required=True, help="for <category>_train.jgz and _test.jgz")
    parser.add_argument(
        "--min_quality", type=real(-1e9, 1e9), default=MIN_QUALITY, help="of viewpoints (default: %(default)s)"
    )
    arguments = parser.parse_args()
    there = raw_scenes(arguments.co3d_v2_dir)
    categories = there if arguments.category == "all" else [arguments.category]
    if not there or not set(categories) <= set(there):
        raise FileNotFoundError(
            f"no {categories[0] if there else 'category'}/frame_annotations.jgz in {arguments.co3d_v2_dir}"
        )
    skipped = 0
    for category in tqdm(categories, unit="category"):
        if all((arguments.output_dir / f"{category}_{subset}.jgz").exists() for subset in SUBSETS):
            continue
        try:
            write_category(arguments.co3d_v2_dir, category, arguments.output_dir, arguments.min_quality)
        except SkipScene as reason:
            tqdm.write(f"{category} is skipped: {reason}")
            skipped += 1
    return int(skipped > 0)


if __name__ == "__main__":
    raise SystemExit(run_main(main))
