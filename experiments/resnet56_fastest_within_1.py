"""ResNet-56 on CIFAR-10: the fastest network within one point of the unpruned one's top1.

python -m edge_tune.run experiments/resnet56_fastest_within_1.py
Blocks go as well as filters: at one latency, a shallower network is better than a narrower one of as many layers.
Pruner groups: Li et al., ICLR 2017, arXiv:1608.08710. The unpruned network teaches: Hinton et al., arXiv:1503.02531.
"""

import edge_tune as et


def conv1(stage: int, blocks: list[int]) -> list[str]:
    return [f"layer{stage}.{block}.conv1.weight" for block in blocks]


def blocks(stage: int, first: int) -> list[str]:
    return [f"layer{stage}.{block}" for block in range(first, 9)]  # the first of stages 2 and 3 changes the shape


ANY = et.Uniform(0.0, 0.99)  # sparsity: fraction of the filters of each weight to remove

experiment = et.Experiment(
    model="resnet56_cifar",
    dataset="cifar10",
    pruner_groups={
        "layer_1": et.PrunerGroup("filters", conv1(1, [0, 1, 2, 3, 4, 5, 6, 7, 8]), sparsity=ANY),
        "layer_2": et.PrunerGroup("filters", conv1(2, [1, 2, 3, 4, 6, 7]), sparsity=ANY),
        "layer_3.1": et.PrunerGroup("filters", conv1(3, [1]), sparsity=ANY),
        "layer_3.2": et.PrunerGroup("filters", conv1(3, [2, 3, 5, 6, 7, 8]), sparsity=ANY),
        # How many of a stage's blocks stay; those go first without which the network loses least.
        "stage_1": et.BlockGroup(blocks(1, first=0), keep=et.Integer(2, 9)),
        "stage_2": et.BlockGroup(blocks(2, first=1), keep=et.Integer(2, 8)),
        "stage_3": et.BlockGroup(blocks(3, first=1), keep=et.Integer(2, 8)),
    },
    target="minimise latency_ratio where top1 >= unpruned - 1",
    # A rate of 0.1 takes from the network in its first epochs what later ones must teach it again.
    retraining=et.Retraining(epochs=20, lr=0.03, decay=et.Cosine(), distillation=et.Distillation()),
    stopping=[et.Predicted(), et.Hopeless(after_epochs=1)],
    benchmark=et.Benchmark(device="CPU", runs=200),
    search=et.Search("latency_aware", trials=256, seed=0),
    baselines={
        "off_the_shelf": {
            **{"layer_1": 0.7, "layer_2": 0.6, "layer_3.1": 0.2, "layer_3.2": 0.4},
            **{"stage_1": 9, "stage_2": 8, "stage_3": 8},  # all of them
        }
    },
)
