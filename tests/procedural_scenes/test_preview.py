"""The command of the README writes what it says."""

import av
from PIL import Image

from procedural_scenes.__main__ import main


def test_preview_writes_an_image_and_a_clip(tmp_path, capsys):
    main(f"preview --out {tmp_path}/new --scenes 2 --frames 3 --clip-frames 5 --size 28 42 --split val".split())
    assert Image.open(tmp_path / "new/scenes.png").size == (3 * 42, 2 * (28 + 14))
    with av.open(str(tmp_path / "new/walk.mp4")) as container:
        assert len(list(container.decode(video=0))) == 5
    assert capsys.readouterr().out.count("frames/s") == 2
