"""Training and fine-tuning of both models. Only this room needs `pip install lightning-fabric`."""
