"""Train a small network on scikit-learn's digits with Lightning, recorded by Runstone.

By itself:      python train.py --lr=0.003
As a trial:     sweep run sweep.yaml

Nothing here knows of the sweep: it passes the params as arguments, follows `val/acc` in what the callback
records, and prunes through the callback.
"""

from __future__ import annotations

import argparse
import logging

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from runstone_integrations.lightning import TrackingCallback


class Classifier(LightningModule):
    """Two layers, from 64 grey values to 10 digits."""

    def __init__(self, *, hidden: int, dropout: float, lr: float, optimizer: str) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 10))
        self.loss = nn.CrossEntropyLoss()

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        x, y = batch
        loss: Tensor = self.loss(self.net(x), y)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        x, y = batch
        logits = self.net(x)
        self.log("val/loss", self.loss(logits, y))
        self.log("val/acc", (logits.argmax(dim=1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.hparams["optimizer"] == "sgd":
            return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"], momentum=0.9)
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])


def loaders(batch_size: int) -> tuple[DataLoader, DataLoader]:
    """Return the training and the validation data, split the same way each time."""
    digits = load_digits()
    x = torch.tensor(digits.data / 16.0, dtype=torch.float32)
    y = torch.tensor(digits.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    validation, train = order[:360], order[360:]
    return (
        DataLoader(TensorDataset(x[train], y[train]), batch_size=batch_size, shuffle=True),
        DataLoader(TensorDataset(x[validation], y[validation]), batch_size=512),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--hidden", type=int, default=64, help="width of the hidden layer")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--optimizer", choices=["adam", "sgd"], default="adam")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(1)  # several trials share the machine
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    seed_everything(options.seed, verbose=False)
    train, validation = loaders(options.batch_size)
    model = Classifier(hidden=options.hidden, dropout=options.dropout, lr=options.lr, optimizer=options.optimizer)
    trainer = Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        callbacks=[TrackingCallback(project="digits")],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=5,
    )
    trainer.fit(model, train, validation)


if __name__ == "__main__":
    main()
