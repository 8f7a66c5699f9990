"""Pass ``distill``: the latest graph learns from a teacher, another model on the same classes.

- ``options``: what is matched, and how strongly.
- ``teacher``: the teacher as answers (ONNX Runtime): it may be of any architecture and input size; each side
  prepares images by its own InputSpec. Answers are kept where images are not augmented.
- ``objectives``: soft labels (Hinton et al., https://arxiv.org/abs/1503.02531) and features (FitNets,
  https://arxiv.org/abs/1412.6550; attention transfer, https://arxiv.org/abs/1612.03928).
- ``pairing``: which layer learns from which; ``detection``: raw and decoded boxes.
- ``graphs``: ``distill_graph`` puts them together on an imported graph, whatever format it came from.
- ``checkpoints``: ``distill_ultralytics`` for Ultralytics' own files: its trainer's ``distill_model``.

Nothing but ``options`` may be imported without torch.
"""
