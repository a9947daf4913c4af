"""Training and fine-tuning of both models. Needs `pip install "imtalker[train]"`; nothing else needs it."""
