"""The python blocks of README and docs/ run, page by page from top to bottom."""

import functools
import re
import threading

import pytest
import torch
from launching import ROOT

import streamvggt
from streamvggt import StreamSession
from streamvggt.data.view import Batch
from streamvggt.stream.frames import load_frames
from streamvggt.stream.policy import describe


PAGES = ("docs/api.md", "docs/streaming.md", "docs/training.md", "docs/webcam-and-robots.md")
"""Pages with python blocks. tests/test_commands.py runs that of README.md, tests/datasets/test_docs.py that of data.md."""
