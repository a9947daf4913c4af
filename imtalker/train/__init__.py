"""Training and fine-tuning of both models. Needs `pip install "imtalker[train]"`; nothing else imports this package."""
