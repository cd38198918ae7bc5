"""Other pictures made of a picture: techniques, recipes, and what is worth keeping.

noise, colour, proportion, features    the techniques: pure functions, uint8 RGB to uint8 RGB
sizes          sizes relative to the picture
registry       every technique by name, with its parameters' ranges; seeded generators
recipes        which techniques, how often, how strongly: built in, or a YAML file
quality_filter  near copies and destroyed pictures
multiplying    few photos of a class into many
contact_sheet  a photo under every technique, for a person to look at
"""

from retrieval.augmentations.contact_sheet import contact_sheet
from retrieval.augmentations.quality_filter import Guard, Verdict
from retrieval.augmentations.recipes import (
    AUGMENTATION_VERSION,
    RECIPES,
    Apply,
    Recipe,
    Step,
    load_recipe,
)
from retrieval.augmentations.registry import CATALOGUE, Parameter, Technique, random_generator

__all__ = [
    "AUGMENTATION_VERSION",
    "CATALOGUE",
    "RECIPES",
    "Apply",
    "Guard",
    "Parameter",
    "Recipe",
    "Step",
    "Technique",
    "Verdict",
    "contact_sheet",
    "load_recipe",
    "random_generator",
]
