"""Demo page: reconstruct a 3D scene from photos, a video or a camera, frame by frame.

pip install -r requirements_demo.txt && python demo_gradio.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))  # runs without installation, for example in a Space

from streamvggt.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
