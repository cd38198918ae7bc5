"""What only a GPU can show: its own sums, streams and memory, at the sizes that it works with.

The cases of test_search_gpu.py run on the GPU as well, where there is one.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from retrieval.images import Preprocessing
from retrieval.models import inference
from retrieval.models.backbones import BackboneSpec, build_backbone
from retrieval.models.embedder import Embedder
from retrieval.models.network_input import as_network_input
from retrieval.search import best, is_distance, top_k
from retrieval.search.gpu import GpuSearch
from tests.retrieval.gpu_cases import DTYPES, METRICS, bits, block, split, unit_rows

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
GPU, CPU = torch.device("cuda"), torch.device("cpu")
PHOTO = Preprocessing(size=224)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def rank_on_gpu(queries, blocks, k, metric, *, use_triton, resident=False):
    done = GpuSearch(queries, k, metric, device=GPU, use_triton=use_triton)
    for part in blocks:
        if resident:
            done.add_resident(part.ids, torch.tensor(part.vectors, device=GPU))
        else:
            done.add(part)
    return done


def rank_on_cpu(queries, gallery, k, metric):
    return best([top_k(queries, [gallery], k, metric)], k, smaller_is_nearer=is_distance(metric))


@pytest.mark.parametrize("use_triton", [False, True], ids=["torch", "Triton"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [10, 1000])
def test_the_gpu_ranks_as_the_cpu_does(rng, use_triton, metric, dtype, k):
    gallery = block(unit_rows(rng, 150_000, 512, dtype))
    queries = block(unit_rows(rng, 300, 512, dtype), "q")
    expected = bits(rank_on_cpu(queries, gallery, k, metric))
    parts = split(gallery, [5, 40_000, 40_001, 111_111])
    for resident in (False, True):
        done = rank_on_gpu(queries, parts, k, metric, use_triton=use_triton, resident=resident)
        assert bits(done.result()) == expected
        assert done.certificate()["engine"] == ("triton" if use_triton else "torch")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [1, 7, 129, 2048])
def test_any_number_of_dimensions(rng, metric, dim):
    gallery = block(unit_rows(rng, 20_000, dim, "float16"))
    queries = block(unit_rows(rng, 40, dim, "float16"), "q")
    expected = bits(rank_on_cpu(queries, gallery, 20, metric))
    for use_triton in (False, True):
        found = rank_on_gpu(queries, [gallery], 20, metric, use_triton=use_triton).result()
        assert bits(found) == expected


@pytest.mark.parametrize("use_triton", [False, True], ids=["torch", "Triton"])
def test_clusters_of_near_copies_and_of_equal_rows(rng, use_triton):
    centres = np.repeat(unit_rows(rng, 400, 256, "float64"), 100, axis=0)
    rows = (centres + rng.normal(size=centres.shape) * 1e-4).astype(np.float16)
    rows[::3] = np.repeat(rows[:1], len(rows[::3]), axis=0)
    gallery = block(rows)
    queries = block(rows[rng.integers(0, len(rows), 60)], "q")
    for metric in METRICS:
        expected = bits(rank_on_cpu(queries, gallery, 50, metric))
        found = rank_on_gpu(queries, split(gallery, [999]), 50, metric, use_triton=use_triton)
        assert bits(found.result()) == expected


def test_with_little_memory_the_blocks_are_smaller_and_the_bits_the_same(rng):
    gallery = block(unit_rows(rng, 100_000, 256, "float16"))
    queries = block(unit_rows(rng, 500, 256, "float16"), "q")
    expected = bits(rank_on_cpu(queries, gallery, 10, "cosine"))
    done = GpuSearch(queries, 10, "cosine", device=GPU, memory_bytes=64 * 2**20)
    done.add(gallery)
    assert bits(done.result()) == expected


# Embedding.


def photos(rng, count, side=224):
    colours = rng.integers(0, 256, (count, 1, 1, 3))
    noise = rng.integers(-60, 60, (count, side, side, 3))
    return (colours + noise).clip(0, 255).astype(np.uint8)


def test_bytes_are_normalised_on_the_gpu_as_on_the_cpu(rng):
    pixels = photos(rng, 5)
    there, here = as_network_input(pixels, PHOTO, GPU), as_network_input(pixels, PHOTO, CPU)
    assert there.device.type == "cuda"
    assert there.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-6)


def cosines(found, network, pixels):
    """Of each photo's embedding with the network's own answer, in float32 on the CPU."""
    with torch.inference_mode():
        expected = network(as_network_input(pixels, PHOTO, CPU)).numpy().astype(np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    return (found.astype(np.float64) * expected).sum(axis=1)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_float16_embeddings_agree_with_float32_on_the_cpu(rng, backbone):
    spec = BackboneSpec(name=backbone, weights="none")
    embedder, pixels = Embedder(spec, PHOTO), photos(rng, 40)
    found = embedder.embed(pixels)
    assert embedder.manner == "float16, batches of 256"
    assert cosines(found, build_backbone(spec), pixels).min() >= 0.999
    again = np.concatenate([embedder.embed(pixels[n : n + 1]) for n in range(5)])
    assert (again == found[:5]).all()  # whatever lies beside


def test_features_too_small_for_float16_are_computed_in_float32(rng):
    spec = BackboneSpec(name="googlenet", weights="none")  # untrained its features are near 1e-9
    embedder, pixels = Embedder(spec, PHOTO), photos(rng, 20)
    found = embedder.embed(pixels)
    assert embedder.manner.startswith("float32 (not float16: a photo's features had a cosine of 0")
    assert cosines(found, build_backbone(spec), pixels).min() >= 0.9999


def test_threads_with_streams_of_their_own_give_the_same_bits(rng):
    embedder = Embedder(BackboneSpec(name="resnet18", weights="none"), PHOTO, batch_size=64)
    batches = [photos(rng, 64) for _ in range(6)]
    expected = [embedder.embed(batch) for batch in batches]
    found = [[] for _ in range(3)]

    def work(mine):
        mine.extend(embedder.embed(batch) for batch in batches * 3)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine in found:
        assert all((a == b).all() for a, b in zip(mine, expected * 3, strict=True))


def test_a_compiled_network_agrees(rng, monkeypatch, tmp_path):
    monkeypatch.setattr(inference, "_COMPILING_PAYS_S", 0)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    spec = BackboneSpec(name="resnet18", weights="none")
    embedder, pixels = Embedder(spec, PHOTO, batch_size=32, num_photos=10**6), photos(rng, 32)
    found = embedder.embed(pixels)
    assert embedder.manner == "float16, compiled, batches of 32"
    assert cosines(found, build_backbone(spec), pixels).min() >= 0.999


def test_a_batch_that_does_not_fit_is_halved_and_said(rng):
    spec = BackboneSpec(name="resnet50", weights="none")
    embedder, pixels = Embedder(spec, PHOTO, batch_size=512), photos(rng, 512)
    expected = embedder.embed(pixels[:4])
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    # Room for the network and some photos, not for 512: their first layer alone has 0.8 GB.
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 2**29) / whole)
    try:
        found = embedder.embed(pixels)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    size = int(embedder.manner.rpartition(" ")[2])
    assert 1 <= size < 512
    assert (found[:4].astype(float) * expected.astype(float)).sum(axis=1).min() >= 0.999
