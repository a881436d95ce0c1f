"""Arguments of the commands, one module each, with the function `add_arguments(parser)`.

These modules import neither PyTorch nor the modules that run the commands, so that help and completion are fast.
"""
