"""ResNet-20 on handwritten digits, in minutes: the fastest network within two points of the unpruned one's top1.

python -m edge_tune.run experiments/quickstart.py
"""

import edge_tune as et


def conv1(stage: int) -> list[str]:
    return [f"layer{stage}.{block}.conv1.weight" for block in range(3)]


ANY = et.Uniform(0.0, 0.75)  # sparsity: fraction of the filters of each weight to remove

experiment = et.Experiment(
    model="resnet20_cifar",
    dataset="digits",
    pruner_groups={
        # How many blocks stay; those go first without which the network loses least.
        "blocks": et.BlockGroup(
            ["layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"], keep=et.Integer(2, 6)
        ),
        "stage_1": et.PrunerGroup("filters", conv1(1), sparsity=ANY),
        "stage_2": et.PrunerGroup("filters", conv1(2), sparsity=ANY),
        "stage_3": et.PrunerGroup("filters", conv1(3), sparsity=ANY),
    },
    target="minimise latency_ratio where top1 >= unpruned - 2",
    # The unpruned network teaches, at a rate that leaves what the network knows.
    retraining=et.Retraining(epochs=4, lr=0.03, decay=et.Cosine(), batch_size=64, distillation=et.Distillation()),
    stopping=[et.Hopeless(after_epochs=1)],
    search=et.Search("hyperopt", trials=5, seed=0),
)
