"""Whether losses should see vectors from the centre of the gallery's, for every loss.

    python benchmarks/centring.py --data D --gallery G [G ...] --checkpoint FILE

A pretrained backbone is frozen, so that its features are computed once, and its projection is
trained from the closed-form start by each loss, once towards the vectors as they are and once
towards the same vectors centred. Printed: cross-test mAP on the validation classes at the start and
at the end, and the gain of centring, for each gallery with its shape.
"""

import argparse

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from compat.losses import create_loss, list_losses
from compat.metrics import shape
from compat.predictors.maps import Moments, ridge_map
from compat.targets import AlignmentTargets
from compat.tasks import RetrievalTask, SplitConfig, load_study_data
from searchspaces import QueryModel, timm_query_model

JOINT = {"aff", "csch"}  # train both sides


@torch.no_grad()
def features_of(model: QueryModel, pictures: np.ndarray) -> torch.Tensor:
    """Pooled features (N, f) of uint8 pictures."""
    parts = np.array_split(np.arange(len(pictures)), -(-len(pictures) // 128))
    images = (torch.from_numpy(pictures[p]).permute(0, 3, 1, 2) / 255 for p in parts)
    return torch.cat([model.pooled(each) for each in images])


def trained(
    projection: nn.Module,
    features: torch.Tensor,
    targets: AlignmentTargets,
    name: str,
    centred: bool,
    options: argparse.Namespace,
) -> nn.Module:
    """Train the projection alone; the loss's own parameters along with it."""
    loss = create_loss(name, targets, centred=centred, seed=options.seed)
    parameters = [*projection.parameters(), *loss.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=options.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    generator = torch.Generator().manual_seed(options.seed)
    for _ in range(options.steps):
        rows = torch.randint(len(features), (options.batch,), generator=generator)
        batch = targets.batch(rows)
        query = nn.functional.normalize(projection(features[rows]), dim=1)
        value = loss(query, batch.vectors, batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    return projection


def score(projection: nn.Module, features: torch.Tensor, task: RetrievalTask) -> float:
    """Validation cross-test of a projection."""
    with torch.no_grad():
        found = nn.functional.normalize(projection(features), dim=1).numpy()
    return task.cross_test(found[task.retrieval.queries]).map


def table(gallery: str, options: argparse.Namespace) -> None:
    """Print the rows of one gallery."""
    data = load_study_data(options.data, gallery, SplitConfig())
    model = timm_query_model(
        options.backbone,
        data.gallery.dimension,
        resolution=options.resolution,
        checkpoint=options.checkpoint,
    ).eval()
    training = data.training(options.resolution)
    features = torch.cat([features_of(model, np.asarray(p)) for p in training.pictures])
    asked = features_of(model, np.asarray(data.val.pixels(options.resolution)))
    found = ridge_map(Moments.of(features.numpy(), training.targets.vectors.numpy()))
    form = shape(training.targets.gallery.numpy())
    start = nn.Linear(features.shape[1], data.gallery.dimension)
    weight = found.weights / found.scale[:, None]
    stretch = float(start.weight.detach().norm()) / np.linalg.norm(weight)
    with torch.no_grad():
        start.weight.copy_(torch.from_numpy(stretch * weight.T))
        start.bias.copy_(torch.from_numpy(stretch * (found.offset - found.mean @ weight)))
    print(
        f"\n{gallery}: mean cosine {form.mean_cosine:.2f}, effective rank "
        f"{form.effective_rank:.0f} of {data.gallery.dimension}; start "
        f"{score(start, asked, data.val):.3f}, paragon {data.val.paragon.map:.3f}\n"
    )
    print("| loss | as they are | centred | gain |\n|---|---:|---:|---:|")
    for name in tqdm([n for n in list_losses() if n not in JOINT], disable=None):
        scores = []
        for centred in (False, True):
            projection = nn.Linear(*reversed(start.weight.shape))
            projection.load_state_dict(start.state_dict())
            try:
                projection = trained(projection, features, training.targets, name, centred, options)
            except Exception as error:  # a loss may ask for what this gallery lacks
                print(f"| {name} | {error} |")
                break
            scores.append(score(projection, asked, data.val))
        else:
            plain, centred = scores
            print(f"| {name} | {plain:.3f} | {centred:.3f} | {centred - plain:+.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--gallery", required=True, nargs="+")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for gallery in options.gallery:
        table(gallery, options)


if __name__ == "__main__":
    main()
