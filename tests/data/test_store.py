import io

import numpy as np
import pytest
from PIL import Image

from stillroom.data.geometry import as_stored, fit_image
from stillroom.data.store import Quarantined, at_side, build_store
from stillroom.data.table import UnreadableImage
from stillroom.errors import RunError, UsageError


@pytest.fixture
def build(tmp_path):
    """``build(table, size=32, fit="pad")`` in a cache of the test's own."""

    def build(table, size=32, fit="pad"):
        return build_store(table, size=size, fit=fit, cache=tmp_path, progress=False)

    build.cache = tmp_path
    return build


def grey(scene, seed, **sides):
    return scene(seed, **sides)[..., 0]


def deep(scene, seed, top):
    return (grey(scene, seed).astype(np.uint32) * top // 255).astype(np.uint16)


def test_rows_are_what_the_predictor_makes_of_the_same_files(make_table, build, scene):
    images = [scene(0), grey(scene, 1), scene(2, 40, 200), np.stack([grey(scene, 3)] * 3, -1)]
    for fit in ("pad", "resize"):
        store, table, quarantined = build(make_table(images), fit=fit)
        assert store.colour
        assert store.white == 255
        assert store.images.shape == (4, 3, 32, 32)
        assert store.images.dtype == np.uint8
        assert (len(table), quarantined) == (4, [])
        for row, image in enumerate(images):
            np.testing.assert_array_equal(store.images[row], as_stored(image, 32, fit, colour=True, white=255))


def test_the_store_is_on_disk_and_read_only(make_table, build, scene):
    store = build(make_table([scene(0), scene(1)]))[0]
    assert isinstance(store.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store.images[0] = 0


def test_grey_films_saved_as_colour_take_one_channel(make_table, build, scene):
    images = [np.stack([grey(scene, seed)] * 3, -1) for seed in range(3)]
    store = build(make_table(images))[0]
    assert not store.colour
    assert store.images.shape == (3, 1, 32, 32)


@pytest.mark.parametrize(("top", "white"), [(900, 1023), (4095, 4095), (4096, 16383), (40000, 65535)])
def test_white_of_sixteen_bit_sets(make_table, build, scene, top, white):
    images = [deep(scene, 0, 800), deep(scene, 1, top)]
    images[1][0, :5] = top  # one more than a handful
    store = build(make_table(images, stamp=str(top)))[0]
    assert store.white == white
    assert store.images.dtype == np.uint16
    for row, image in enumerate(images):
        np.testing.assert_array_equal(store.images[row], as_stored(image, 32, "pad", colour=False, white=white))


@pytest.mark.parametrize("hot", [65535, 5000])
def test_a_hot_pixel_does_not_say_what_white_is(make_table, build, scene, hot):
    """Of a 12-bit set with four dead pixels in one film every other film is as it would be without, and that film nearly."""
    clean = [deep(scene, seed, 4000) for seed in range(6)]
    burnt = [image.copy() for image in clean]
    burnt[2][[0, 0, 50, 51], [0, 1, 60, 60]] = hot
    right = build(make_table(clean, stamp="clean"))[0]
    store = build(make_table(burnt, stamp="burnt"))[0]
    assert store.white == right.white == 4095
    assert store.facts.clipped.tolist() == [0, 0, 4, 0, 0, 0]
    assert store.take(np.array([2, 1])).facts.clipped.tolist() == [4, 0]
    others = np.array([0, 1, 3, 4, 5])
    np.testing.assert_array_equal(store.batch(others), right.batch(others))
    np.testing.assert_array_equal(store.thumbnails[others], right.thumbnails[others])
    capped = np.minimum(burnt[2], 4095)
    np.testing.assert_array_equal(store.images[2, 0], fit_image(capped, 32, "pad"))
    np.testing.assert_array_equal(store.images[2], as_stored(burnt[2], 32, "pad", colour=False, white=store.white))
    small = np.rint(fit_image(capped, 32, "resize") * (255 / 4095)).astype(np.uint8)
    np.testing.assert_array_equal(store.thumbnails[2], small)
    reopened = build(make_table(burnt, stamp="burnt"))[0]
    assert reopened.facts.clipped.tolist() == store.facts.clipped.tolist()


def test_one_film_of_16_bits_keeps_its_content(make_table, build, scene):
    images = [*(deep(scene, seed, 4000) for seed in range(5)), deep(scene, 5, 60000)]
    store = build(make_table(images))[0]
    assert (store.white, store.facts.clipped.any()) == (65535, False)
    assert store.facts.whites.tolist() == [4095] * 5 + [65535]
    np.testing.assert_array_equal(store.images[5, 0], fit_image(images[5], 32, "pad"))


def test_an_image_that_changes_before_it_is_read_again_ends_the_build(make_table, build, scene):
    burnt = [deep(scene, seed, 4000) for seed in range(3)]
    burnt[1][0, 0] = 65535
    table = make_table(burnt)
    first = table.reader.read

    def read(index):
        if table.reader.reads >= 3:
            raise UnreadableImage("gone")
        return first(index)

    table.reader.read = read
    with pytest.raises(RunError, match=r"image1\.png changed while it was being read"):
        build(table)
    assert not list((build.cache / "stores").iterdir())


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_any_mix_of_depth_and_colour_in_any_order(make_table, build, scene, order):
    kinds = [grey(scene, 0), deep(scene, 1, 30000), scene(2), grey(scene, 3)]
    images = [kinds[kind] for kind in order]
    store = build(make_table(images, stamp=str(order)))[0]
    assert (store.white, store.colour) == (65535, True)
    assert store.bit_depths.tolist() == [16 if kind == 1 else 8 for kind in order]
    for row, image in enumerate(images):
        np.testing.assert_array_equal(store.images[row], as_stored(image, 32, "pad", colour=True, white=65535))
        light = luminance_of(image) if image.dtype == np.uint8 else image / 257
        assert abs(store.thumbnails[row].mean() - light.mean()) < 2


def luminance_of(image):
    return np.asarray(Image.fromarray(image).convert("L")).astype(float)


def test_digests_see_pixels_and_not_files(make_table, build, scene):
    picture = grey(scene, 0)
    buffer = io.BytesIO()
    Image.fromarray(picture).convert("RGB").save(buffer, "BMP")
    again = np.asarray(Image.open(buffer))
    other = picture.copy()
    other[5, 5] ^= 1
    reshaped = picture.reshape(picture.shape[1], picture.shape[0])
    digests = build(make_table([picture, again, other, reshaped, picture.astype(np.uint16)]))[0].digests
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_masks_share_the_images_geometry(make_table, build):
    image = np.zeros((60, 100), np.uint8)
    image[20:40, 50:90] = 255
    store = build(make_table([image, image], masks=[image > 0, None]), size=50)[0]
    assert store.has_mask.tolist() == [True, False]
    np.testing.assert_array_equal(store.masks[0], store.images[0, 0] > 127)
    assert not store.masks[1].any()
    assert build(make_table([image], masks=[None], stamp="none"))[0].masks is None


def test_masks_of_another_scale_are_resized_and_of_another_shape_refused(make_table, build):
    image = np.zeros((60, 100), np.uint8)
    image[20:40, 50:90] = 255
    scales = [image[::2, ::2] > 0, np.repeat(image, 3, axis=0).repeat(3, axis=1) > 0, image > 0]
    turned = [(image > 0).T, np.ones((60, 98), bool), np.ones((60, 60), bool), np.ones((1, 100), bool)]
    store, _, quarantined = build(make_table([image] * 7 + [scene_of(image)], masks=[*scales, *turned, None]), size=50)
    assert [row.id for row in quarantined] == [f"image{row}.png" for row in range(3, 7)]
    assert all("not the same shape" in row.reason for row in quarantined)
    assert store.facts.scaled_masks.tolist() == [True, True, False, False]
    for row in range(3):
        np.testing.assert_array_equal(store.masks[row], store.images[row, 0] > 127)


def scene_of(image):
    return image[::-1].copy()


def test_unreadable_images_are_named_and_the_rows_stay_aligned(make_table, build, scene):
    images = [grey(scene, 0), "the file is cut short", grey(scene, 2), grey(scene, 3), np.zeros((0, 5), np.uint8)]
    masks = [None, None, None, np.ones((120, 96), bool), None]
    images += [grey(scene, 5), grey(scene, 6)]
    masks += [None, None]
    store, table, quarantined = build(make_table(images, masks=masks))
    assert quarantined == [
        Quarantined("image1.png", "the file is cut short"),
        Quarantined("image3.png", "its mask is 96x120 pixels, the image 120x96: not the same shape"),
        Quarantined("image4.png", "it has no pixels"),
    ]
    assert table.ids.tolist() == ["image0.png", "image2.png", "image5.png", "image6.png"]
    np.testing.assert_array_equal(store.images[2], as_stored(images[5], 32, "pad", colour=False, white=255))


def test_mostly_unreadable_is_refused_with_names(make_table, build, scene):
    with pytest.raises(UsageError, match=r"4 of the 7 .*image0\.png \(torn\), image1.*image2.*Mend") as caught:
        build(make_table(["torn"] * 4 + [scene(seed) for seed in range(3)]))
    assert "image3" not in str(caught.value)
    with pytest.raises(UsageError, match="no images"):
        build(make_table([]))
    assert not list((build.cache / "stores").iterdir())


def test_a_second_call_decodes_nothing(make_table, build, scene):
    images = [scene(seed) for seed in range(5)]
    first = build(make_table(images))[0]
    table = make_table(images)
    second = build(table)[0]
    assert table.reader.reads == 0
    assert second.fingerprint == first.fingerprint
    np.testing.assert_array_equal(second.images, first.images)
    np.testing.assert_array_equal(second.digests, first.digests)
    assert build(make_table(images[:4]))[0].fingerprint != first.fingerprint
    assert build(make_table(images), size=16)[0].fingerprint != first.fingerprint
    assert build(make_table(images), fit="resize")[0].fingerprint != first.fingerprint


def test_equal_pixels_from_other_bytes_are_the_same_images(make_table, build, scene):
    """So that an image in another place or format is the same to a bank, a cached teacher and a run; masks count too."""
    images = [scene(seed) for seed in range(3)]
    masks = [scene(seed)[..., 0] > 80 for seed in range(3)]
    first = build(make_table(images, masks=masks))[0].fingerprint
    assert build(make_table(images, masks=masks, stamp="in another format"))[0].fingerprint == first
    changed = masks[2].copy()
    changed[7, 7] ^= True
    assert build(make_table(images, masks=[*masks[:2], changed], stamp="2"))[0].fingerprint != first
    assert build(make_table(images, masks=[*masks[:2], None], stamp="3"))[0].fingerprint != first
    assert build(make_table(images[::-1], masks=masks[::-1], stamp="4"))[0].fingerprint != first
    bright = [image.astype(np.uint16) * (1 + 255 * (row == 0)) for row, image in enumerate(images)]
    whole = build(make_table(bright, stamp="5"))[0]
    dark = build(make_table(bright[1:], stamp="6"))[0]
    assert whole.take(np.array([1, 2])).digests.tolist() == dark.digests.tolist()
    assert whole.take(np.array([1, 2])).fingerprint != dark.fingerprint  # white means another value


def test_a_store_of_another_rule_is_not_opened(make_table, build, scene, monkeypatch):
    images = [scene(seed) for seed in range(3)]
    first = build(make_table(images))[0].fingerprint
    monkeypatch.setattr("stillroom.data.store.PREPROCESSING_VERSION", 1)
    table = make_table(images)
    assert build(table)[0].fingerprint != first
    assert table.reader.reads == 3


def test_each_image_is_decoded_once(make_table, build, scene):
    table = make_table([scene(seed) for seed in range(70)])
    build(table)
    assert table.reader.reads == 70


@pytest.mark.parametrize("damage", ["meta.json", "pixels.bin", "thumbnails.bin", "index.npz", "cut"])
def test_a_damaged_store_is_rebuilt(make_table, build, scene, damage):
    images = [scene(seed) for seed in range(3)]
    expected = np.array(build(make_table(images))[0].images)
    (folder,) = (build.cache / "stores").iterdir()
    if damage == "cut":
        with (folder / "pixels.bin").open("rb+") as file:
            file.truncate(1000)
    else:
        (folder / damage).unlink()
    table = make_table(images)
    np.testing.assert_array_equal(build(table)[0].images, expected)
    assert table.reader.reads == 3


@pytest.mark.parametrize(
    "name", ["meta.json", "pixels.bin", "masks.bin", "thumbnails.bin", "index.npz", "digests.json"]
)
def test_a_store_with_a_flipped_bit_is_decoded_again_with_a_word(make_table, build, scene, capsys, name):
    images, masks = [scene(seed) for seed in range(2)], [scene(seed)[..., 0] > 80 for seed in range(2)]
    expected = build(make_table(images, masks=masks))[0]
    pixels, lesions = np.array(expected.images), np.array(expected.masks)
    (folder,) = (build.cache / "stores").iterdir()
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    table = make_table(images, masks=masks)
    again = build(table)[0]
    assert table.reader.reads == 2
    assert f"{folder / name} was changed or damaged after it was written" in capsys.readouterr().err
    np.testing.assert_array_equal(again.images, pixels)
    np.testing.assert_array_equal(again.masks, lesions)


def test_a_mended_file_comes_back(make_table, build, scene):
    images = [scene(0), "permission denied", scene(2)]
    assert len(build(make_table(images))[0]) == 2
    assert len(build(make_table(images))[0]) == 2
    images[1] = scene(1)
    store, _, quarantined = build(make_table(images))
    assert (len(store), quarantined) == (3, [])


def test_a_reason_names_the_files_as_they_are_called_now(make_table, build, scene):
    """A store is found by content, whatever the files were called when it was made."""
    for name in ("before.png", "now.png"):
        reason = f"its mask {name} cannot be read: the file is empty (0 bytes)"
        _, _, quarantined = build(make_table([scene(0), reason, scene(2)]))
        assert quarantined == [Quarantined("image1.png", reason)]
    assert len(list((build.cache / "stores").iterdir())) == 1


def test_take_copies_no_pixels_and_keeps_rows_together(make_table, build, scene):
    images = [scene(seed) for seed in range(6)]
    store, table, _ = build(make_table(images, masks=[scene(seed)[..., 0] > 80 for seed in range(6)]))
    part = store.take(np.array([4, 1, 3])).take(np.array([2, 0]))
    assert part.pixels is store.pixels
    assert (len(part), part.fingerprint != store.fingerprint) == (2, True)
    np.testing.assert_array_equal(part.images, np.asarray(store.images)[[3, 4]])
    np.testing.assert_array_equal(part.masks, np.asarray(store.masks)[[3, 4]])
    np.testing.assert_array_equal(part.batch(np.array([1, 0])), np.asarray(store.images)[[4, 3]])
    np.testing.assert_array_equal(part.digests, store.digests[[3, 4]])
    flagged = store.take(np.arange(6) % 2 == 0)
    np.testing.assert_array_equal(flagged.images, np.asarray(store.images)[::2])
    batch = store.batch(np.array([0]))
    batch[:] = 0
    assert store.images[0].any()
    assert len(table) == 6


def test_a_set_larger_than_the_disk_is_refused(make_table, build, scene, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(RunError, match=r"more than 4 kB needed, 1 kB free"):
        build(make_table([scene(0), scene(1)]))


def test_a_reader_that_breaks_its_word_is_a_bug(make_table, build):
    with pytest.raises(TypeError, match="float64"):
        build(make_table([np.zeros((4, 4))]))


# -- another side -------------------------------------------------------------------------------------------------
def test_the_same_rows_at_another_side(make_table, scene, tmp_path):
    """Row for row, without those that cannot be read, and white as the whole set has it."""
    deep = [scene(number).astype(np.uint16)[..., 0] * 5 for number in range(5)]
    deep[4] = deep[4] * 20  # the brightest alone says that white is 65535
    table = make_table([*deep[:2], "damaged", *deep[2:]])
    store, _, _ = build_store(table, size=32, fit="pad", cache=tmp_path, progress=False)
    some = store.take(np.array([3, 0]))
    large = at_side(table, some, 96, cache=tmp_path, progress=False)
    assert large.images.shape[1:] == (1, 96, 96)
    assert large.digests.tolist() == some.digests.tolist()
    assert large.white == some.white == 65535
    for row, image in enumerate((deep[3], deep[0])):
        assert np.array_equal(large.images[row, 0], fit_image(image, 96, "pad"))
    assert at_side(table, some, 32, cache=tmp_path, progress=False) is some
    assert large.fingerprint not in (some.fingerprint, store.fingerprint)


def test_images_that_changed_meanwhile_are_not_taken_for_the_same(make_table, scene, tmp_path):
    table = make_table([scene(number) for number in range(4)])
    store, _, _ = build_store(table, size=32, fit="pad", cache=tmp_path, progress=False)
    changed = make_table([scene(number) for number in (0, 1, 2, 9)], stamp="new")
    with pytest.raises(RunError, match="changed while they were being read at 64 pixels"):
        at_side(changed, store, 64, cache=tmp_path, progress=False)
