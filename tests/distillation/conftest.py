"""Made training steps: random outputs of a student and its teachers, with everything that any objective may ask for."""

import pytest
import torch

from stillroom.distillation.step import Step, TeacherOutputs
from stillroom.models.taps import Outputs

POOLED = 96  # as test_resnet has it


def make_step(task, batch=6, teachers=2, dtype=torch.float32, progress=0.5, seed=0, shapes=None, **other):
    """A step whose student outputs (in ``dtype``) require gradients and whose teachers' outputs do not.

    ``shapes``: of the teachers' maps; ``other``: fields of the teachers' outputs to give instead of random ones.
    """
    generator = torch.Generator().manual_seed(seed)
    classes = len(task.classes)

    def random(*shape):
        return torch.randn(shape, generator=generator)

    def outputs():
        made = (
            2 * random(batch, classes),
            random(batch, POOLED),
            random(batch, 5, 4, 4),
            random(batch, 1, 4, 4).sigmoid(),
        )
        return Outputs(*(value.to(dtype).requires_grad_() for value in made))

    student, other_view = outputs(), outputs()  # before the teachers', so that these change none of it
    if task.exclusive:
        targets = torch.randint(0, classes, (batch,), generator=generator)
    else:
        targets = torch.randint(0, 2, (batch, classes), generator=generator)
    shapes = shapes or [(3, 2, 2), (7, 6, 6), (4, 4, 4)][:teachers]
    said = {
        "logits": 2 * random(teachers, batch, classes),
        "pooled": [random(batch, 3 + number) for number in range(teachers)],
        "maps": [random(batch, *shape).relu() for shape in shapes],
        "attentions": [random(batch, 1, *shape[1:]).sigmoid() for shape in shapes],
    }
    images, others = (torch.rand(batch, 1, 32, 32, generator=generator) for _ in range(2))
    teacher = TeacherOutputs(**said | other)
    return Step(images, targets, student, teacher, task, progress, None, others, other_view)


@pytest.fixture(name="make_step")
def _make_step():
    return make_step
