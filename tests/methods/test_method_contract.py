"""What every file in methods/ must do, whatever its method is."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from observer import Observer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import methods.fixed_sizes
from harness.experiment import discovery
from methods.method import Method
from methods.negative_diagnostics import DISTANCES

METHODS = [*discovery.names(), discovery.TEMPLATE]
FOLDER = Path(discovery.FOLDER)
CHANNELS, STRIDES = (6, 8, 10, 12), (4, 8, 16, 32)


def features(batch=2, height=32, width=64, channels=CHANNELS):
    maps = zip(channels, STRIDES, strict=False)
    return [torch.randn(batch, c, height // s, width // s, requires_grad=True) for c, s in maps]


def logits_for(labels, num_classes, right=0.5):
    """Logits at stride 4 whose argmax is the label at about the share `right` of the valid pixels."""
    grid = labels[:, ::4, ::4]
    logits = torch.randn(len(labels), num_classes, *grid.shape[1:])
    hit = (grid < num_classes) & (torch.rand(grid.shape) < right)
    return logits.scatter_add(1, grid.clamp(max=num_classes - 1)[:, None], 100.0 * hit[:, None]).requires_grad_()


def blocks(num_classes, batch=2, height=32, width=64):
    coarse = torch.randint(0, num_classes, (batch, height // 8, width // 8))
    labels = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)
    labels[torch.rand(labels.shape) < 0.05] = 255
    return labels


def case(name):
    """(features, logits, labels, number of classes) of an edge case."""
    torch.manual_seed(0)
    classes, right = 5, 0.5
    labels = blocks(classes)
    if name == "all_ignored":
        labels.fill_(255)
    elif name == "one_image_ignored":
        labels[0] = 255
    elif name == "one_class":
        labels.fill_(3)
    elif name == "one_pixel":
        labels.fill_(255)
        labels[0, 0, 0] = 2
    elif name == "class_of_one_pixel":
        labels.fill_(1)
        labels[1, 4, 4] = 4
    elif name == "class_missing_at_coarse_layers":
        labels.fill_(1)
        labels[:, 4:12, 4:12] = 2
    elif name == "nothing_misclassified":
        right = 2.0
    elif name == "everything_misclassified":
        labels = torch.where(labels == 255, 255, labels.clamp(max=3))
        return features(), logits_for(torch.full_like(labels, 4), classes, right=2.0), labels, classes
    elif name == "many_classes":
        classes = 150
        labels = torch.arange(32 * 64).view(32, 64).remainder(150).expand(2, 32, 64).clone()
    elif name == "batch_of_one":
        labels = blocks(classes, batch=1)
        return features(1), logits_for(labels, classes), labels, classes
    return features(), logits_for(labels, classes, right), labels, classes


CASES = [
    "ordinary",
    "all_ignored",
    "one_image_ignored",
    "one_class",
    "one_pixel",
    "class_of_one_pixel",
    "class_missing_at_coarse_layers",
    "nothing_misclassified",
    "everything_misclassified",
    "many_classes",
    "batch_of_one",
]


def build(name, num_classes, channels=CHANNELS):
    torch.manual_seed(0)
    return discovery.load(name)(channels, num_classes).train()


def check_terms(method, terms, maps, logits):
    """Every term is a finite scalar whose gradient is finite, in features, logits and the method's parameters."""
    assert all(isinstance(key, str) for key in terms)
    for term in terms.values():
        assert term.shape == ()
        assert term.isfinite()
        assert term.requires_grad
    if terms:
        sum(terms.values()).backward()
        assert any(x.grad is not None for x in (*maps, logits))
        gradients = [x.grad for x in (*maps, logits, *method.parameters()) if x.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
    for key, value in method.diagnostics.items():
        assert not value.requires_grad
        if key.startswith("distance_bins/"):
            assert value.shape == (len(DISTANCES) + 1,)
            assert not value.isinf().any()
        elif key.startswith("by_layer/"):
            assert value.shape == (len(maps),)
            assert ((value >= 0) & (value <= 1)).all()
        else:
            assert value.isfinite().all()
            assert value.shape in ((), (method.num_classes,))


def test_the_methods_are_found():
    assert {"contextrast", "cross_entropy", "pixel_contrast"} <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("edge", CASES)
def test_loss_is_finite_with_a_graph(name, edge):
    maps, logits, labels, classes = case(edge)
    method = build(name, classes)
    for iteration in range(3):  # state, such as a memory, may only matter from the second step on
        terms = method(maps, logits, labels, iteration)
    check_terms(method, terms, maps, logits)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("edge", ["ordinary", "all_ignored"])
def test_loss_under_bfloat16_autocast_is_a_finite_float32_scalar(name, edge):
    maps, logits, labels, classes = case(edge)
    method = build(name, classes)
    with torch.autocast("cpu", torch.bfloat16):
        for iteration in range(3):  # a memory is empty at first
            terms = method(maps, logits.bfloat16(), labels, iteration)
    assert all(term.dtype == torch.float32 for term in terms.values())
    check_terms(method, terms, maps, logits)


@pytest.mark.parametrize("name", METHODS)
def test_loss_works_with_any_number_of_maps(name):
    for number in range(1, len(CHANNELS) + 1):
        maps, logits, labels, classes = case("ordinary")
        method = build(name, classes, CHANNELS[:number])
        terms = method(maps[:number], logits, labels, 0)
        check_terms(method, terms, maps[:number], logits)


@pytest.mark.parametrize("name", METHODS)
def test_what_stands_at_ignored_pixels_changes_nothing(name):
    maps, logits, labels, classes = case("ordinary")
    method = build(name, classes)
    embeddings = [z.detach() for z in method.embed(maps)]
    changed = []
    for z in embeddings:
        stride = labels.shape[1] // z.shape[2]
        ignored = (labels[:, ::stride, ::stride] == 255)[:, None]
        changed.append(torch.where(ignored, 1e4, z))
    # On the labels' grid: a loss at the labels' size interpolates a coarser one, so that neighbours see each other.
    fine = logits.repeat_interleave(4, 2).repeat_interleave(4, 3)
    other = torch.where((labels == 255)[:, None], torch.randn_like(fine), fine)
    results = []
    for z, scores in ((embeddings, fine), (changed, other)):
        method = build(name, classes)
        torch.manual_seed(1)
        results.append({key: term.item() for key, term in method.loss(z, scores, labels, 0).items()})
    assert results[0] == pytest.approx(results[1], rel=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_the_seed_decides_every_draw(name):
    maps, logits, labels, classes = case("ordinary")
    results = []
    for _ in range(2):
        method = build(name, classes)
        torch.manual_seed(5)
        results.append([{k: v.item() for k, v in method(maps, logits, labels, i).items()} for i in range(2)])
    assert results[0] == results[1]


@pytest.mark.parametrize("name", METHODS)
def test_another_seed_gives_another_value_only_where_torchs_generator_was_asked(name):
    maps, logits, labels, classes = case("ordinary")
    results, drew = [], []
    for seed in (5, 6):
        method = build(name, classes)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results.append([{k: v.item() for k, v in method(maps, logits, labels, i).items()} for i in range(2)])
        drew.append(not torch.equal(before, torch.get_rng_state()))
    if results[0] != results[1]:  # randomness from elsewhere would not be the seed's
        assert drew == [True, True]


@pytest.mark.parametrize("name", METHODS)
def test_a_restored_method_goes_on_as_the_saved_one(name):
    maps, logits, labels, classes = case("ordinary")
    method = build(name, classes)
    method(maps, logits, labels, 0)
    torch.manual_seed(9)
    restored = discovery.load(name)(CHANNELS, classes).train()
    restored.load_state_dict(method.state_dict())
    results = []
    for each in (method, restored):
        torch.manual_seed(2)
        results.append({key: term.item() for key, term in each(maps, logits, labels, 1).items()})
    assert results[0] == results[1]


@pytest.mark.parametrize("name", METHODS)
def test_method_knows_its_classes_and_ignore_index(name):
    method = discovery.load(name)(CHANNELS, 7, 250)
    assert isinstance(method, Method)
    assert (method.channels, method.num_classes, method.ignore_index) == (CHANNELS, 7, 250)
    maps, _, labels, _ = case("ordinary")
    labels = torch.where(labels == 255, 250, labels)
    logits = torch.randn(2, 7, 8, 16, requires_grad=True)
    check_terms(method, method(maps, logits, labels, 0), maps, logits)


def operations(name, batch, present, num_classes=24):
    """Operations of one loss over vertical stripes of `present` classes, all misclassified."""
    labels = (torch.arange(96) // 4 % present).expand(batch, 64, 96)
    method = build(name, num_classes)
    embeddings = [z.detach() for z in method.embed(features(batch, 64, 96))]
    logits = 100.0 * torch.nn.functional.one_hot((labels[:, ::4, ::4] + 1) % present, num_classes).movedim(-1, 1)
    with Observer() as counted:
        method.loss(embeddings, logits, labels, 0)
    return counted.operations


@pytest.mark.parametrize("name", METHODS)
def test_no_loop_over_images_or_classes(name):
    assert operations(name, batch=6, present=24) <= operations(name, batch=2, present=3)


class HostWaits(TorchDispatchMode):
    """Notes the operations that run and that make the host wait where the tensors are a GPU's.

    They are those whose result the host needs, as a value or for a shape, and copies of the host's values to the
    device (`new_tensor`, `torch.tensor`). On a CPU `tolist` and `numpy` are no operations: `Reads` notes them.
    """

    ALWAYS = frozenset(
        (
            *("_local_scalar_dense", "equal", "allclose", "is_nonzero", "nonzero", "argwhere", "masked_select"),
            *("bincount", "unique", "_unique", "_unique2", "unique_dim", "unique_consecutive", "lift_fresh"),
            "randperm",  # of few elements, which the host draws and copies
        )
    )

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        indices = args[1] if name.startswith(("index", "_index_put", "_unsafe_index")) and len(args) > 1 else ()
        masks = [each for each in indices if _is_mask(each)] if isinstance(indices, (list, tuple)) else []
        repeats = name == "repeat_interleave" and kwargs.get("output_size") is None
        if name in self.ALWAYS or masks or repeats:
            self.found.append(name)
        return function(*args, **kwargs)


def _is_mask(index):
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)


class Reads(TorchFunctionMode):
    """Notes what reads a tensor's values into Python without an operation."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in ("tolist", "numpy", "cpu", "__array__"):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def host_waits(method, maps, logits, labels):
    """What would make the host wait for a GPU in a step of the method, once it has state."""
    for iteration in range(2):
        step(method, maps, logits, labels, iteration)
    with HostWaits() as waits, Reads(waits.found):
        step(method, maps, logits, labels, 2)
    return waits.found


def step(method, maps, logits, labels, iteration):
    """The terms' sum and its gradients, as tensors, in the maps, the logits and the method's parameters."""
    terms = list(method(maps, logits, labels, iteration).values())
    if not terms:
        return [logits.new_zeros(())]
    loss = sum(terms)
    gradients = torch.autograd.grad(loss, [*maps, logits, *method.parameters()], allow_unused=True)
    return [loss.detach(), *(each for each in gradients if each is not None)]


VARIANTS = [
    *((name, {}) for name in METHODS),
    *(("contextrast", {"negatives": kind}) for kind in ("false_positives", "as_printed", "random", "semi_hard")),
    ("contextrast", {"ties": "percentile"}),
    ("contextrast", {"by_distance": False, "max_positives": 10}),
    ("contextrast", {"normalize": False, "detach_anchors": True, "temperature": 1.0}),
    ("contextrast", {"sync_anchors": True}),
    ("active_boundary", {"variant": "official"}),
    ("car", {"variant": "official"}),
    ("conditional_boundary", {"variant": "official"}),
    ("jaccard_metric", {"over": "images", "index": "dice", "label_smoothing": 0.1}),
    ("lovasz_softmax", {"per_image": True}),
    ("ohem", {"threshold": None}),
    ("prototypes", {"variant": "official"}),
    ("supervised_pixel_contrast", {"across": "two_images"}),
    *(("contextrast_pp", {"stored": kind}) for kind in ("earliest_layer", "deepest_layer", "all_layers")),
    *(("contextrast_pp", {"fusion": kind}) for kind in ("static", "concat_mlp", "cross_attention", "gated_scalar")),
    ("multiscale_contrast", {"variant": "official"}),
    ("pixel_contrast", {"variant": "official"}),
    ("pixel_contrast", {"memory": True}),
    ("pne", {"variant": "official"}),
    ("region_contrast", {"centres": "predicted"}),
]
# The one method that reads a size from the device, which its docstring justifies, and what its step waits for.
READS = {"multiscale_contrast": ["tolist"]}


@pytest.fixture
def fixed_sizes(monkeypatch):
    """Sizes on the CPU as a GPU has them."""
    monkeypatch.setattr(methods.fixed_sizes, "FIXED", True)


@pytest.mark.slow
@pytest.mark.parametrize("observing", [True, False])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_no_step_makes_the_host_wait(name, options, observing, fixed_sizes):
    maps, logits, labels, classes = case("ordinary")
    method = discovery.load(name)(CHANNELS, classes, **options).train()
    method.observing = observing
    assert host_waits(method, maps, logits, labels) == READS.get(name, [])


ALL = dict.fromkeys(("anchors_per_image", "max_views", "pixels_enqueued", "drawn_positives", "drawn_negatives"), 10**4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pne", {}),
        ("pne", {"variant": "official"}),
        ("pixel_contrast", ALL | {"memory": True, "semi_hard": 1.0, "pixel_memory_size": 500}),
        ("region_contrast", {"memory_size": 9}),
    ],
)
def test_fixed_sizes_change_no_term(name, options, monkeypatch):
    maps, logits, labels, classes = case("ordinary")
    found = []
    for fixed in (False, True):
        monkeypatch.setattr(methods.fixed_sizes, "FIXED", fixed)
        torch.manual_seed(0)
        method = discovery.load(name)(CHANNELS, classes, **options).double().train()
        wide = [each.detach().double().requires_grad_() for each in maps]
        for iteration in range(2):
            torch.manual_seed(iteration)
            found.append(step(method, wide, logits.double(), labels, iteration))
    assert found[1][0] > 1e-4
    for exact, padded in zip(found[1], found[3], strict=True):
        torch.testing.assert_close(exact, padded, rtol=1e-8, atol=1e-12)


class Waiting(Method):
    """Waits as methods could."""

    def embed(self, features):
        return list(features)

    def loss(self, embeddings, logits, labels, iteration):
        pixels = embeddings[0].movedim(1, -1)[
            labels[:, ::4, ::4] != self.ignore_index
        ]  # index, twice with its backward
        weights = pixels.new_tensor([1.0, 2.0])  # lift_fresh
        if labels.float().mean() > 0:  # _local_scalar_dense
            pixels = pixels * weights[0]
        present = labels.unique().tolist()  # _unique2, tolist
        return {"waiting": pixels.sum() / len(present)}


def test_what_makes_the_host_wait_is_counted():
    maps, logits, labels, classes = case("ordinary")
    found = host_waits(Waiting(CHANNELS, classes), maps, logits, labels)
    assert sorted(found) == ["_local_scalar_dense", "_unique2", "index", "index_put", "lift_fresh", "tolist"]


@pytest.mark.parametrize("name", METHODS)
def test_diagnostics_are_there_only_when_observed(name):
    maps, logits, labels, classes = case("ordinary")
    found = {}
    for observing in (True, False):
        method = build(name, classes)
        method.observing = observing
        torch.manual_seed(1)
        terms = method(maps, logits, labels, 0)
        found[observing] = {key: term.item() for key, term in terms.items()}
        assert all(isinstance(value, torch.Tensor) for value in method.diagnostics.values())
        assert observing or not method.diagnostics
    assert found[True] == found[False]  # to look changes nothing


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "options"), [each for each in VARIANTS if each[0] not in READS])
def test_a_step_on_a_gpu_waits_for_nothing_and_replays_as_a_graph(name, options):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    maps, logits, labels, classes = case("ordinary")
    maps = [each.detach().cuda().requires_grad_() for each in maps]
    logits, labels = logits.detach().cuda().requires_grad_(), labels.cuda()
    torch.manual_seed(0)
    method = discovery.load(name)(CHANNELS, classes, **options).train().cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(method, maps, logits, labels, 1)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(method, maps, logits, labels, 1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.current_stream().wait_stream(stream)
    state = {key: value.clone() for key, value in method.state_dict().items()}

    torch.manual_seed(3)
    eager = [each.clone() for each in step(method, maps, logits, labels, 1)]
    after = {key: value.clone() for key, value in method.state_dict().items()}
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(method, maps, logits, labels, 1)
    method.load_state_dict(state)
    torch.manual_seed(3)
    graph.replay()
    torch.cuda.synchronize()
    assert captured[0].item() == pytest.approx(eager[0].item(), rel=1e-5)
    for found, expected in zip(captured, eager, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    for key, value in method.state_dict().items():
        torch.testing.assert_close(value, after[key], rtol=1e-4, atol=1e-5)


def test_methods_import_no_harness_and_no_segmentation_framework():
    modules = [f"methods.{path.stem}" for path in FOLDER.glob("*.py") if path.stem != "__init__"]
    code = f"""
import importlib, sys
for module in {modules}:
    importlib.import_module(module)
print(sorted(set(sys.modules) & {{"harness", "mmseg", "mmengine", "mmcv", "mmpretrain"}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=FOLDER.parent, check=True)
    assert done.stdout.strip() == "[]"


# Terms with a chance level, and whether random embeddings reach it within a tenth. The hardest pairs cost more; anchors
# that are means of the few pixels of a batch are near to these, which costs less.
CHANCES = [
    ("car", {}, {"centre_to_centre", "centre_to_pixel"}, True),
    ("car", {"variant": "official"}, {"centre_to_centre", "centre_to_pixel"}, True),
    ("conditional_boundary", {}, {"boundary_pairs"}, False),
    ("contextrast", {}, {"pixel_anchor"}, False),
    ("contextrast_pp", {}, {"pixel_anchor", "anchor_anchor"}, False),
    ("multiscale_contrast", {}, {"multi_scale", "cross_scale"}, True),
    ("multiscale_contrast", {"cross_scale": False}, {"multi_scale"}, True),
    ("pixel_contrast", {}, {"pixel_contrast"}, True),
    ("pixel_contrast", {"variant": "official", "min_pixels": 9}, {"pixel_contrast"}, True),
    ("pixel_contrast", {"memory": True}, {"pixel_contrast"}, False),
    ("pixel_contrast", {"memory": True, "semi_hard": 1.0}, {"pixel_contrast"}, True),
    ("pixel_contrast_synthetic", {}, {"pixel_contrast"}, False),
    ("pne", {}, {"pne"}, True),
    ("prototypes", {}, {"prototype_contrast"}, False),
    ("region_contrast", {}, {"region_contrast"}, True),
    ("supervised_pixel_contrast", {}, {"supervised_pixel_contrast"}, True),
    ("supervised_pixel_contrast", {"across": "two_images"}, {"supervised_pixel_contrast"}, True),
]


@pytest.mark.parametrize(("name", "options", "stated", "reached"), CHANCES)
def test_chance_is_what_embeddings_that_know_nothing_give(name, options, stated, reached):
    """With all embeddings alike each term that states its chance level has that value, whatever the labels."""
    size = 64, 96  # enough pixels for a mean
    for make in (torch.ones_like, torch.randn_like):
        torch.manual_seed(0)
        method, labels = discovery.load(name)(CHANNELS, 5, **options), blocks(5, 2, *size)
        logits = logits_for(labels, 5)
        for _ in range(3):  # a memory is empty at first
            terms = method.loss([make(z).requires_grad_() for z in method.embed(features(2, *size))], logits, labels, 0)
        chances = {key.removeprefix("chance/"): value for key, value in method.diagnostics.items() if "chance/" in key}
        assert chances.keys() == stated
        for term, chance in chances.items():
            assert chance > 0
            if make is torch.randn_like:
                assert not reached or terms[term].item() == pytest.approx(chance.item(), rel=0.1)
            elif name == "conditional_boundary":  # the best that one similarity of all pairs can reach, here it is 1
                assert chance <= terms[term]
            else:
                assert terms[term].item() == pytest.approx(chance.item(), rel=1e-5)


def test_a_method_of_pairs_states_its_chance_level():
    """All methods but those without pairs, which have nothing to guess."""
    without = {"active_boundary", "cross_entropy", "deep_supervision", "jaccard_metric", "lovasz_softmax", "ohem"}
    assert {name for name, *_ in CHANCES} == set(discovery.names()) - without


def test_embeddings_are_kept_while_a_method_is_observed():
    for name in ("contextrast", "pixel_contrast"):
        method, labels = discovery.load(name)(CHANNELS, 5), blocks(5)
        maps = features()
        method(maps, logits_for(labels, 5), labels, 0)
        for kept, made in zip(method.embeddings, method.embed(maps), strict=True):
            assert not kept.requires_grad and torch.allclose(kept, made, atol=1e-5)
        method.observing = False
        method(maps, logits_for(labels, 5), labels, 0)
        assert method.embeddings == []
