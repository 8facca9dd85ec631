"""One run as users write it: timm, Hugging Face peft, and a DataLoader that decodes in every epoch.

    python perf/peer_loop.py FOLDER --form fp32 --method lora --backbone vit_tiny_patch16_224 --weights FILE

FOLDER is a task in the archive layout.  Each form includes the previous one:

    fp32       eager single precision, with four workers that restart in each epoch, as in the peers' repositories
    autocast   bf16 autocast, persistent workers, pinned memory, fused AdamW
    compiled   torch.compile

Prints one JSON line: seconds of the process, of training and of evaluation, and the last accuracy.
"""

import time

BEGAN = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
from contextlib import nullcontext  # noqa: E402
from pathlib import Path  # noqa: E402

import timm  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from PIL import Image  # noqa: E402
from timm.scheduler import CosineLRScheduler  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402
from torchvision import transforms  # noqa: E402

FORMS = ("fp32", "autocast", "compiled")


class ListedImages(Dataset[tuple[Tensor, int]]):
    def __init__(self, folder: Path, lists: tuple[str, ...]) -> None:
        lines = [line for name in lists for line in (folder / f"{name}.txt").read_text().splitlines()]
        self.folder, self.items = (
            folder,
            [(path, int(label)) for path, label in (line.rsplit(" ", 1) for line in lines)],
        )
        self.transform = transforms.Compose(
            [
                transforms.Resize((224, 224), interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.ToTensor(),
                transforms.Normalize([0.5] * 3, [0.5] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.items[index]
        return self.transform(Image.open(self.folder / path).convert("RGB")), label


def build(options: argparse.Namespace, classes: int) -> nn.Module:
    if options.weights:
        model = timm.create_model(
            options.backbone, checkpoint_path=str(options.weights), drop_path_rate=options.drop_path
        )
    else:
        model = timm.create_model(options.backbone, drop_path_rate=options.drop_path)
    model.reset_classifier(classes)
    if options.method == "lora":
        from peft import LoraConfig, get_peft_model

        return get_peft_model(model, LoraConfig(r=8, lora_alpha=8, target_modules=["qkv"], modules_to_save=["head"]))
    from vtab_peft.methods import parse  # AOFT has no package: our module in the peers' loop

    model.requires_grad_(False)
    parse(options.method).inject(model)
    model.get_classifier().requires_grad_(True)
    return model


def loader(data: Dataset, options: argparse.Namespace, train: bool) -> DataLoader:
    tuned = options.form != "fp32"
    return DataLoader(
        data,
        batch_size=options.batch if train else 128,
        shuffle=train,
        drop_last=train,
        num_workers=options.workers,
        persistent_workers=tuned,
        pin_memory=tuned and torch.cuda.is_available(),
    )


@torch.no_grad()
def accuracy(model: nn.Module, test: DataLoader, device: torch.device, form: str) -> float:
    model.eval()
    correct = seen = 0
    for images, labels in test:
        with context(form, device):
            predictions = model(images.to(device)).argmax(dim=1).cpu()
        correct, seen = correct + int((predictions == labels).sum()), seen + len(labels)
    model.train()
    return correct / seen


def context(form: str, device: torch.device):
    return nullcontext() if form == "fp32" else torch.autocast(device.type, torch.bfloat16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--form", choices=FORMS, default="fp32")
    parser.add_argument("--method", default="lora", help="lora (of peft), or a method spec")
    parser.add_argument("--backbone", default="vit_base_patch16_224")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--drop-path", type=float, default=0.1)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's own choice")
    parser.add_argument("--test-every", type=int, default=0, help="epochs between evaluations; 0: only the last")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train = loader(ListedImages(options.folder, ("train800val200",)), options, train=True)
    test = loader(ListedImages(options.folder, ("test",)), options, train=False)
    classes = 1 + max(label for _, label in train.dataset.items)
    model = build(options, classes).to(device).train()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=1e-4, fused=options.form != "fp32"
    )
    schedule = CosineLRScheduler(
        optimizer, t_initial=options.epochs, warmup_t=options.epochs // 10, warmup_lr_init=1e-6
    )
    if options.form == "compiled":
        model = torch.compile(model)
    started, evaluating = time.perf_counter(), 0.0
    for epoch in range(options.epochs):
        for images, labels in train:
            with context(options.form, device):
                loss = F.cross_entropy(
                    model(images.to(device, non_blocking=True)), labels.to(device, non_blocking=True)
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # shown by a progress line
        schedule.step(epoch + 1)
        if epoch + 1 == options.epochs or (options.test_every and (epoch + 1) % options.test_every == 0):
            began = time.perf_counter()
            found = accuracy(model, test, device, options.form)
            evaluating += time.perf_counter() - began
    ended = time.perf_counter()
    print(
        json.dumps(
            {
                "seconds": ended - BEGAN,
                "train_seconds": ended - started - evaluating,
                "evaluation_seconds": evaluating,
                "accuracy": found,
            }
        )
    )


if __name__ == "__main__":
    main()
