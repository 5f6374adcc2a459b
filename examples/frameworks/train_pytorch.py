"""A small convolutional net of PyTorch, exported to ONNX, and what PyTorch itself says for some held-out rows.

    pip install -r requirements-pytorch.txt   # some GiB: PyTorch's wheel brings CUDA along, which is not used
    python train_pytorch.py                   # rewrites pytorch/model.onnx and pytorch/reference.json

Apart from train.py because of that wheel. The parity test is the same (serving-runtime/tests/it/frameworks.rs).
"""
import json
import pathlib

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = pathlib.Path(__file__).parent / "pytorch"
ROWS = 40

torch.manual_seed(7)
torch.set_num_threads(1)
x, y = load_digits(return_X_y=True)
x, held, y, truth = train_test_split(x.astype(np.float32), y, test_size=0.3, random_state=7, stratify=y)


class Net(nn.Module):
    """Rows of 64 brightnesses from 0 to 16, as the data set has them, to probabilities of ten digits."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 4 * 4, 10),
        )

    def forward(self, pixels):
        return torch.softmax(self.body(pixels / 16), dim=1)


net = Net()
optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
for _ in range(30):
    for part in torch.randperm(len(inputs)).split(64):
        optimizer.zero_grad()
        nn.functional.nll_loss(torch.log(net(inputs[part]) + 1e-9), labels[part]).backward()
        optimizer.step()
net.eval()

HERE.mkdir(exist_ok=True)
path = HERE / "model.onnx"
batch = torch.export.Dim("N")
program = torch.onnx.export(
    net, (inputs[:2],), input_names=["input"], output_names=["probabilities"], dynamic_shapes={"pixels": {0: batch}}, dynamo=True
)
program.save(path)
# Weights inside of the file: its digest then covers all of the model.
graph = onnx.load(path)
for leftover in HERE.glob("*.data"):
    leftover.unlink()
onnx.checker.check_model(graph)
onnx.save(graph, path)

with torch.no_grad():
    expected = net(torch.from_numpy(held[:ROWS])).numpy()
    accuracy = (net(torch.from_numpy(held)).numpy().argmax(1) == truth).mean()
reference = {
    "input": "input",
    "output": "probabilities",
    "rows": held[:ROWS].astype(float).tolist(),
    "expected": expected.astype(float).round(8).tolist(),
}
(HERE / "reference.json").write_text(json.dumps(reference) + "\n")
print(f"{path.stat().st_size} bytes; {accuracy:.3f} of the held-out rows are right")
