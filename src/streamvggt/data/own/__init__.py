"""Scenes in the layouts of other tools: transforms.json, COLMAP, TUM RGB-D, and images or videos without labels."""
