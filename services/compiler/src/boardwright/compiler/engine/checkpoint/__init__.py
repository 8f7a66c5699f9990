"""Checkpoints are hostile input. Every format is judged before any library parses it.

- ``archive``: zip directories: bombs, overlaps, names that leave the folder.
- ``pickles``: replays a pickle with inert stand-ins: what it names, what it claims.
- ``globals_policy``: the allow-list, and what to tell whoever brings something else.
- ``torch_file``, ``state_dict``, ``torchscript``, ``ultralytics_file``: one format each.
- ``onnx_file``: external data, claimed sizes, NaNs.
"""
