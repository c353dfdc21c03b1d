"""MobileNetV2 on a folder of your own images of 224 px, from ImageNet's weights: the fastest within two points of top1.

python -m edge_tune.run experiments/mobilenet_v2_folder.py --data IMAGES \
    --weights https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth

IMAGES holds train/CLASS/* and test/CLASS/*; a few hundred images do. The weights know 1,000 classes: the network gets a
new classifier for yours, which is trained first, alone, then with the network (`training`). The file is torchvision's,
MobileNet_V2_Weights.IMAGENET1K_V2. Pruner groups: what can be removed is found in the network when the study starts.
"""

import edge_tune as et

experiment = et.Experiment(
    model="mobilenet_v2",
    # Of few images, a tenth would be too few to choose by: one of 40 is 2.5 points of top1.
    dataset=et.Data("images", image_size=224, validation_fraction=0.25, augmentation=["resized_crop", "flip"]),
    pruner_groups="auto",
    target="minimise latency_ratio where top1 >= unpruned - 2",
    training=et.Retraining(epochs=5, lr=0.01, decay=et.Cosine(), batch_size=16),
    # The unpruned network teaches, at a rate that leaves what the network knows.
    retraining=et.Retraining(epochs=5, lr=0.01, decay=et.Cosine(), batch_size=16, distillation=et.Distillation()),
    stopping=[et.Hopeless(after_epochs=1)],
    search=et.Search("latency_aware", trials=12, seed=0),
)
