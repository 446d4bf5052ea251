"""What is expected of work that was never timed."""

import asyncio
from dataclasses import replace

import pytest

from stillroom.serving.bodies import Sent
from stillroom.serving.desk import Desk
from stillroom.serving.settings import ServeSettings
from stillroom.serving.shelf import Shelf, open_model
from stillroom.serving.work import Frame


@pytest.mark.parametrize("seconds", [0.001, 0.1, 10.0])
def test_maps_that_come_together_to_a_fresh_server_are_drawn_however_dear_they_are_guessed_to_be(
    model, images, seconds
):
    served = replace(open_model("m", model), seconds=seconds)
    desk = Desk(ServeSettings((str(model),)), Shelf([served]))
    content = next(path for path in images if path.name == "grey1.png").read_bytes()

    async def body():
        tasks = [desk.explain(served, [Frame(Sent(None, content))], "rise", None) for _ in range(6)]
        return await asyncio.wait_for(asyncio.gather(*tasks), 30)

    assert all(drawn.heat is not None for (drawn,) in asyncio.run(body()))
    assert served.kinds["rise"].seconds < 2
    desk.end()


def test_files_that_are_no_images_do_not_let_in_more_than_are_answered_in_time(model):
    served = replace(open_model("m", model), seconds=0.01)
    desk = Desk(ServeSettings((str(model),)), Shelf([served]))
    frame = Frame(Sent(None, b"this is no image"))

    async def body():
        for _ in range(10):
            (drawn,) = await desk.explain(served, [frame], "rise", None)
            (answer,) = await desk.predict(served, [frame])
            assert drawn.heat is None
            assert answer.error

    before = served.seconds, desk._map_guess(served)
    asyncio.run(body())
    after = served.kinds["predict"], served.kinds["rise"]
    assert tuple(kind.seconds for kind in after) == pytest.approx(before, rel=0.5)
    assert not any(kind.timed for kind in after)
    desk.end()
