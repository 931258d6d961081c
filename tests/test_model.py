"""Sequential: how a model is put together, taken apart, copied, read and asked."""

import copy
import pickle

import numpy as np
import pytest

import xpnet
from xpnet import NotBuiltError, Sequential, ShapeError, layers, optimizers
from xpnet.layers import (
    Activation,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPooling2D,
    Residual,
)


def vectors(n=24, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 5)).astype(np.float32), rng.integers(0, 3, n)


def images(n=10, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 2, 7, 6)).astype(np.float32), rng.integers(0, 3, n)


def mlp(seed=1, **kwargs):
    """A small network with running statistics, compiled with an optimizer that has state."""
    model = Sequential(
        [Dense(8, activation="relu"), BatchNormalization(), Dropout(0.3), Dense(3)],
        input_shape=(5,),
        seed=seed,
        **kwargs,
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def cnn(**kwargs):
    stack = [Conv2D(4, 3, activation="relu"), BatchNormalization(), MaxPooling2D(2), Flatten(), Dense(3)]
    model = Sequential(stack, input_shape=kwargs.pop("input_shape", (2, 7, 6)), seed=3, **kwargs)
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def same(a, b):
    """Whether two dicts of arrays hold the same bits under the same names."""
    assert list(a) == list(b)
    return all(np.array_equal(a[name], b[name]) for name in a)


def everything(model):
    """All that training changes, copied."""
    snapshot = model._snapshot()
    return {
        **{f"w.{k}": v for k, v in snapshot["weights"].items()},
        **{f"o.{k}": v for k, v in snapshot["optimizer"].items()},
        **{k: np.array(snapshot[k]) for k in ("iterations", "step", "epochs_trained")},
    }


# -- construction --------------------------------------------------------------------------------------------


def test_input_shape_may_stand_on_the_model_on_the_first_layer_or_wait_for_data():
    x, _ = vectors()
    on_model = Sequential([Dense(4), Dense(3)], input_shape=(5,), seed=0)
    on_layer = Sequential([Dense(4, input_shape=(5,)), Dense(3)], seed=0)
    a_number = Sequential([Dense(4), Dense(3)], input_shape=5, seed=0)
    deferred = Sequential([Dense(4), Dense(3)], seed=0)
    added = Sequential(seed=0)
    added.add(Dense(4, input_shape=(5,)))
    added.add(Dense(3))
    assert on_model.built and on_layer.built and a_number.built and added.built and not deferred.built
    expected = on_model.predict(x)
    for model in (on_layer, a_number, deferred, added):
        assert np.array_equal(model.predict(x), expected)
    assert deferred.input_shape == (5,) and deferred.output_shape == (3,)


def test_build_fixes_the_shapes_and_cannot_be_undone():
    model = Sequential([Dense(3)], seed=0)
    model.build((5,))
    before = model.state_dict()
    model.build((5,))
    assert same(before, model.state_dict())
    with pytest.raises(ShapeError, match=r"another input_shape. Received: \(4,\). Expected: \(5,\)"):
        model.build((4,))
    assert same(before, model.state_dict())


@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m.summary(),
        lambda m: m.state_dict(),
        lambda m: m.input_shape,
        lambda m: m.output_shape,
        lambda m: m.count_params(),
        lambda m: m.load_state_dict({}),
        lambda m: m.save("model.safetensors"),
        lambda m: m.backward(np.ones((1, 3)), []),
    ],
)
def test_what_needs_shapes_says_so_before_there_are_any(ask):
    with pytest.raises(NotBuiltError, match=r"input shape yet.*input_shape=.*build\(input_shape\).*fit"):
        ask(Sequential([Dense(3)]))


def test_an_instance_stands_once_in_a_model():
    dense = Dense(5)
    with pytest.raises(ValueError, match=r"stand in a model once.*another instance"):
        Sequential([dense, dense], input_shape=(5,))
    with pytest.raises(ValueError, match="stand in a model once"):
        Sequential([dense, Residual([dense])], input_shape=(5,))
    model = Sequential([dense], input_shape=(5,))
    with pytest.raises(ValueError, match="stand in a model once"):
        model.add(dense)
    assert model.layers == [dense] and model.predict(np.ones((1, 5))).shape == (1, 5)


def test_a_layer_that_holds_its_weights_in_one_model_cannot_stand_in_another():
    dense = Dense(3)
    first = Sequential([dense], input_shape=(5,), name="first")
    before = first.predict(np.ones((1, 5)))
    with pytest.raises(ValueError, match=r"one model only.*'first'.*deepcopy"):
        Sequential([Dense(4), dense], input_shape=(5,))
    assert np.array_equal(first.predict(np.ones((1, 5))), before)
    moved = first.pop()
    assert Sequential([Dense(4), moved], input_shape=(5,)).predict(np.ones((1, 5))).shape == (1, 3)


def test_layers_of_a_model_that_could_not_be_built_can_be_used_again():
    stack = [Conv2D(2, 3), Flatten(), Dense(3)]
    with pytest.raises(ShapeError) as kept:  # the traceback keeps the failed model alive
        Sequential(stack, input_shape=(5,))
    assert Sequential(stack, input_shape=(1, 5, 5)).built
    assert kept.value is not None


def test_things_that_are_no_layers_are_refused():
    with pytest.raises(
        TypeError, match=r"made of layers. Received: 'relu'. Expected: an object of xpnet.layers"
    ):
        Sequential(["relu"])
    with pytest.raises(TypeError, match="layers must be a list"):
        Sequential(Dense(3))
    assert Sequential(None).layers == []


def test_a_model_without_layers_says_so():
    with pytest.raises(NotBuiltError, match="no layers"):
        Sequential([]).predict(np.ones((1, 2)))


# -- add, pop, to --------------------------------------------------------------------------------------------


def test_adding_layers_one_by_one_gives_the_weights_of_adding_them_at_once():
    grown = Sequential(input_shape=(5,), seed=1)
    for layer in (Dense(8, activation="relu"), BatchNormalization(), Dropout(0.3), Dense(3)):
        grown.add(layer)
    assert same(grown.state_dict(), mlp().state_dict())


def test_add_and_pop_keep_values_running_statistics_and_optimizer_state():
    x, y = vectors()
    model = mlp()
    model.fit(x, y, epochs=2, batch_size=8, verbose=0)
    before, predicted = everything(model), model.predict(x)
    model.add(Dense(3))
    after = everything(model)
    assert {k: v for k, v in after.items() if k in before}.keys() == before.keys()
    assert all(np.array_equal(after[k], before[k]) for k in before)
    assert "o.5.weight.m" in after and not after["o.5.weight.m"].any()
    assert isinstance(model.pop(), Dense)
    assert same(everything(model), before) and np.array_equal(model.predict(x), predicted)
    twin = mlp()
    twin.fit(x, y, epochs=2, batch_size=8, verbose=0)
    for one in (model, twin):  # and training goes on as if nothing had been
        one.fit(x, y, epochs=1, batch_size=8, verbose=0)
    assert same(everything(model), everything(twin))


def test_an_added_layer_learns():
    x, y = vectors()
    model = mlp()
    model.train_on_batch(x, y)
    model.add(Dense(3))
    before = model.state_dict()
    model.train_on_batch(x, y)
    after = model.state_dict()
    assert all(not np.array_equal(before[k], after[k]) for k in ("0.weight", "4.weight", "5.weight"))


def test_an_add_that_fails_leaves_the_model_as_it_was():
    x, y = vectors()
    model = mlp()
    model.train_on_batch(x, y)
    before, predicted = everything(model), model.predict(x)
    with pytest.raises(ShapeError, match="layer 4 'conv2d'"):
        model.add(Conv2D(3, 3))
    assert same(everything(model), before) and np.array_equal(model.predict(x), predicted)
    model.train_on_batch(x, y)
    assert not np.array_equal(model.predict(x), predicted)


def test_a_popped_layer_can_be_added_again_and_pop_of_nothing_is_an_error():
    model = mlp()
    kept = model.state_dict()
    last = model.pop()
    model.add(last)
    assert same(model.state_dict(), kept)  # the same seed and place draw the same weights
    for _ in range(4):
        model.pop()
    with pytest.raises(ValueError, match="no layer to remove"):
        model.pop()
    assert not model.built


def test_to_keeps_values_and_optimizer_state_and_returns_the_model():
    x, y = vectors()
    model = mlp()
    model.fit(x, y, epochs=2, batch_size=8, verbose=0)
    before = everything(model)
    assert model.to("cpu") is model and model.device == "cpu"
    assert same(everything(model), before)


# -- names, summary ------------------------------------------------------------------------------------------


def test_summary_names_layers_shapes_parameters_and_their_sum():
    model = Sequential(
        [Dense(4, activation="relu", name="hidden"), BatchNormalization(), Dense(3)], input_shape=(5,)
    )
    model.layers[0].trainable = False
    lines = []
    model.summary(print_fn=lines.append)
    text = "\n".join(lines)
    assert "sequential: input (5,), channels_first, float32, on cpu" in lines[0]
    assert "hidden (Dense)" in text and "dense_1 (Dense)" in text and "batch_normalization" in text
    assert "(N, 4)" in text and "(N, 3)" in text
    assert lines[-1] == "47 parameters, of which 24 are not trained"  # 5*4+4 + 4+4 + 4*3+3
    assert model.count_params() == 47


def test_summary_prints_by_itself_and_shows_maps_in_the_models_data_format(capsys):
    cnn().summary()
    assert "(N, 4, 5, 4)" in capsys.readouterr().out
    cnn(input_shape=(7, 6, 2), data_format="channels_last").summary()
    assert "(N, 5, 4, 4)" in capsys.readouterr().out


def test_summary_shows_what_is_inside_containers():
    model = Sequential([Residual([Dense(5, name="inner")]), Dense(3)], input_shape=(5,))
    lines = []
    model.summary(print_fn=lines.append)
    assert any(line.startswith("  inner (Dense)") for line in lines)


def test_layers_get_numbered_names():
    model = Sequential([Conv2D(2, 3), MaxPooling2D(), Conv2D(2, 1), Flatten(), Dense(2, name="out")])
    assert [layer.label for layer in model.layers] == [
        "conv2d",
        "max_pooling2d",
        "conv2d_1",
        "flatten",
        "out",
    ]


# -- state_dict ----------------------------------------------------------------------------------------------


def test_state_dict_numbers_modules_as_torch_does_a_fused_activation_being_one():
    model = Sequential(
        [Conv2D(8, 3, activation="relu"), MaxPooling2D(2), Flatten(), Dense(10)], input_shape=(1, 8, 8)
    )
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert shapes == {"0.weight": (8, 1, 3, 3), "0.bias": (8,), "4.weight": (10, 72), "4.bias": (10,)}
    separate = Sequential(
        [Conv2D(8, 3), Activation("relu"), MaxPooling2D(2), Flatten(), Dense(10)], input_shape=(1, 8, 8)
    )
    assert list(separate.state_dict()) == list(shapes)


def test_state_dict_of_batch_normalization_has_torchs_five_entries():
    state = Sequential([BatchNormalization()], input_shape=(4,)).state_dict()
    assert list(state) == [
        "0.weight",
        "0.bias",
        "0.running_mean",
        "0.running_var",
        "0.num_batches_tracked",
    ]
    assert state["0.num_batches_tracked"].shape == () and state["0.num_batches_tracked"].dtype == np.int64
    assert (state["0.weight"] == 1).all() and (state["0.running_var"] == 1).all()


def test_state_dict_names_what_is_inside_containers_by_branch():
    model = Sequential(
        [
            Residual([Dense(4, activation="relu"), Dense(4)], shortcut=[Dense(4)], activation="relu"),
            Concatenate([[Dense(2)], [Activation("tanh"), Dense(3)]]),
        ],
        input_shape=(5,),
    )
    weights = [name for name in model.state_dict() if name.endswith("weight")]
    assert weights == [
        "0.body.0.weight",
        "0.body.2.weight",
        "0.shortcut.0.weight",
        "2.branches.0.0.weight",
        "2.branches.1.1.weight",
    ]


def test_state_dict_goes_to_and_from_torch():
    torch = pytest.importorskip("torch")
    model = cnn()
    twin = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3),
        torch.nn.ReLU(),
        torch.nn.BatchNorm2d(4, eps=1e-3),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 3),
    ).eval()
    x, _ = images()
    model.load_state_dict(twin.state_dict())
    with torch.no_grad():
        assert np.allclose(model.predict(x), twin(torch.tensor(x)).numpy(), atol=1e-5)
    twin.load_state_dict({k: torch.tensor(v) for k, v in cnn().state_dict().items()})
    with torch.no_grad():
        assert np.allclose(cnn().predict(x), twin(torch.tensor(x)).numpy(), atol=1e-5)


def test_state_dict_hands_out_copies():
    model = mlp()
    x, _ = vectors()
    before = model.predict(x)
    for value in model.state_dict().values():
        value[...] = 7
    assert np.array_equal(model.predict(x), before)


def test_load_state_dict_copies_in_and_does_not_keep_the_arrays():
    model, other = mlp(seed=1), mlp(seed=2)
    state = other.state_dict()
    model.load_state_dict(state)
    assert same(model.state_dict(), other.state_dict())
    state["0.weight"][...] = 9
    assert same(model.state_dict(), other.state_dict())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("4.bias"), "Missing: 4.bias"),
        (lambda s: s.update(extra=np.ones(3)), "Not in the model: extra"),
        (
            lambda s: s.update({"4.bias": np.ones(4)}),
            r"layer 3 'dense_1': 4.bias does not fit. Received: \(4,\). Expected: \(3,\)",
        ),
        (
            lambda s: s.update({"4.bias": np.array(["a", "b", "c"])}),
            "4.bias must be numbers. Received: dtype <U1",
        ),
    ],
)
def test_load_state_dict_takes_everything_or_nothing(spoil, message):
    model = mlp()
    before, state = model.state_dict(), mlp(seed=2).state_dict()
    spoil(state)
    with pytest.raises(ValueError, match=message):
        model.load_state_dict(state)
    assert same(model.state_dict(), before)


def test_load_state_dict_that_is_not_strict_takes_what_fits():
    model, other = mlp(), mlp(seed=2).state_dict()
    model.load_state_dict({"0.weight": other["0.weight"], "unknown": np.ones(2)}, strict=False)
    assert np.array_equal(model.state_dict()["0.weight"], other["0.weight"])
    assert not np.array_equal(model.state_dict()["4.weight"], other["4.weight"])


def test_parameters_are_views_of_one_flat_buffer_whose_slots_begin_on_cache_lines():
    model = mlp()
    for slot in model.params.slots:
        view = getattr(slot.layer, slot.name)
        assert np.shares_memory(view, model.params.values) and view.ctypes.data % 64 == 0
        assert np.shares_memory(getattr(slot.layer, "d" + slot.name), model.params.grads)
    model.layers[0].weight[...] = 0.5
    assert (model.state_dict()["0.weight"] == 0.5).all()


def test_gaps_between_parameters_stay_zero_in_training():
    x, y = vectors()
    model = mlp()
    model.compile(
        optimizers.Adagrad(0.1, initial_accumulator_value=0, epsilon=0), "sparse_categorical_crossentropy"
    )
    model.fit(x, y, epochs=3, batch_size=8, verbose=0)
    gap = np.ones(len(model.params.values), bool)
    for slot in model.params.slots:
        gap[slot.start : slot.start + slot.size] = False
    assert gap.any() and not model.params.values[gap].any()


# -- predict -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10, 100, None])
def test_predict_in_blocks_equals_predict_at_once(batch_size):
    x, _ = images()
    model = cnn()
    assert np.allclose(model.predict(x, batch_size=batch_size), model.predict(x, batch_size=10), atol=1e-6)


def test_predict_of_more_samples_than_a_block_keeps_their_order():
    x, _ = vectors(600)
    model = mlp()
    assert np.allclose(model.predict(x), np.concatenate([model.predict(one[None]) for one in x]), atol=1e-6)


def test_channels_last_equals_channels_first_with_transposed_data():
    x, y = images()
    first, last = cnn(), cnn(input_shape=(7, 6, 2), data_format="channels_last")
    swapped = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    assert last.input_shape == (7, 6, 2)
    assert np.array_equal(first.predict(x), last.predict(swapped))
    first.fit(x, y, epochs=2, batch_size=5, verbose=0)
    last.fit(swapped, y, epochs=2, batch_size=5, verbose=0)
    assert same(first.state_dict(), last.state_dict())


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_models_may_end_in_maps_for_prediction_and_training(data_format):
    last = data_format == "channels_last"
    x, _ = images()
    t = np.random.default_rng(1).standard_normal((10, 3, 7, 6)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 3, (10, 7, 6))
    turn = (lambda a: a.transpose(0, 2, 3, 1)) if last else (lambda a: a)
    shape = (7, 6, 2) if last else (2, 7, 6)
    model = Sequential([Conv2D(3, 3, padding="same")], input_shape=shape, data_format=data_format, seed=0)
    reference = Sequential([Conv2D(3, 3, padding="same")], input_shape=(2, 7, 6), seed=0)
    assert model.output_shape == ((7, 6, 3) if last else (3, 7, 6))
    assert np.array_equal(model.predict(turn(x)), turn(reference.predict(x)))
    for loss, target in (("mse", turn(t)), ("sparse_categorical_crossentropy", labels)):
        model.compile("adam", loss)
        start = model.evaluate(turn(x), target)
        model.fit(turn(x), target, epochs=5, batch_size=5, verbose=0)
        assert model.evaluate(turn(x), target) < start


def test_uint8_input_counts_as_its_numbers():
    x = np.random.default_rng(0).integers(0, 256, (6, 2, 7, 6), dtype=np.uint8)
    model = cnn()
    assert np.array_equal(model.predict(x), model.predict(x.astype(np.float32)))
    y = np.arange(6) % 3
    other = cnn()
    model.fit(x, y, verbose=0)
    other.fit(x.astype(np.float32), y, verbose=0)
    assert same(model.state_dict(), other.state_dict())


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.tolist(),
        lambda x: x.astype(np.float64),
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: x.astype(">f4"),
    ],
    ids=["list", "float64", "fortran", "strided", "big-endian"],
)
def test_any_array_of_numbers_will_do(convert):
    x, _ = vectors()
    model = mlp()
    got = model.predict(convert(x))
    assert np.allclose(got, model.predict(x), atol=1e-6) and got.dtype == np.float32


def test_read_only_input_is_never_written():
    x, y = images()
    x.flags.writeable = y.flags.writeable = False
    model = cnn()
    model.predict(x)
    model.fit(x, y, verbose=0)
    model.gradients(x, y)
    y_, caches = model.forward(x, train=True)
    dy = np.ones_like(y_)
    dy.flags.writeable = False
    model.backward(dy, caches)


def test_torch_tensors_are_taken_and_numpy_comes_back():
    torch = pytest.importorskip("torch")
    x, y = vectors()
    model, other = mlp(), mlp()
    model.fit(torch.tensor(x), torch.tensor(y), epochs=2, verbose=0)
    other.fit(x, y, epochs=2, verbose=0)
    predicted = model.predict(torch.tensor(x, requires_grad=True))
    assert type(predicted) is np.ndarray and np.array_equal(predicted, other.predict(x))
    with pytest.raises(ValueError, match=r"x cannot be read as one array.*BFloat16.*Received: Tensor"):
        model.predict(torch.ones(2, 5, dtype=torch.bfloat16))


def test_anything_with_dlpack_is_taken():
    class Foreign:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **kwargs):
            return self.array.__dlpack__(**kwargs)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    x, _ = vectors()
    model = mlp()
    assert np.array_equal(model.predict(Foreign(x)), model.predict(x))


def test_predictions_are_the_users_own_memory():
    x, _ = vectors()
    model = Sequential([Activation("linear")], input_shape=(5,))
    out = model.predict(x)
    out[...] = 0
    assert x.any() and out.flags.owndata and out.flags.c_contiguous


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_precision_is_kept_from_end_to_end(precision):
    x, y = vectors()
    model = mlp(precision=precision)
    model.fit(x, y, verbose=0)
    assert model.predict(x).dtype == precision and model.dtype == precision
    kinds = {v.dtype for k, v in model.state_dict().items() if not k.endswith("tracked")}
    assert kinds == {np.dtype(precision)}
    assert {v.dtype for v in model.gradients(x, y).values()} == {np.dtype(precision)}
    y_, caches = model.forward(x, train=True)
    assert y_.dtype == precision and model.backward(y_, caches).dtype == precision


# -- forward, backward, gradients ----------------------------------------------------------------------------


def test_forward_in_inference_is_predict_and_in_training_uses_the_batch():
    x, y = vectors()
    model = mlp()
    model.train_on_batch(x, y)
    assert np.allclose(model.forward(x)[0], model.predict(x), atol=1e-6)
    assert not np.allclose(model.forward(x, train=True)[0], model.predict(x), atol=1e-2)


def test_backward_gives_dx_and_fills_the_layers_gradients():
    x, _ = vectors(4)
    model = Sequential([Dense(3)], input_shape=(5,), seed=0)
    y, caches = model.forward(x, train=True)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
    kept = dy.copy()
    dx = model.backward(dy, caches)
    dense = model.layers[0]
    assert np.allclose(dx, dy @ dense.weight, atol=1e-5)
    assert np.allclose(dense.dweight, dy.T @ x, atol=1e-5)
    assert np.allclose(dense.dbias, dy.sum(axis=0), atol=1e-5)
    assert np.array_equal(dy, kept), "the user's dy was written"


def test_backward_in_channels_last_speaks_channels_last():
    x, _ = images()
    first = Sequential([Conv2D(3, 3)], input_shape=(2, 7, 6), seed=0)
    last = Sequential([Conv2D(3, 3)], input_shape=(7, 6, 2), data_format="channels_last", seed=0)
    y, caches = first.forward(x, train=True)
    y_last, caches_last = last.forward(x.transpose(0, 2, 3, 1), train=True)
    assert np.array_equal(y_last, y.transpose(0, 2, 3, 1))
    dx, dx_last = first.backward(y, caches), last.backward(y_last, caches_last)
    assert dx.shape == x.shape and np.array_equal(dx_last, dx.transpose(0, 2, 3, 1))


def test_layer_outputs_are_the_stages_of_predict_by_name():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 6, 5, 2)).astype(np.float32)
    layers = [
        Conv2D(4, 3, activation="relu"),
        MaxPooling2D(2),
        Flatten(),
        Dense(7, name="last"),
        Dropout(0.5),
    ]
    model = Sequential(layers, input_shape=(6, 5, 2), data_format="channels_last", seed=0, device="cpu")
    outputs = model.layer_outputs(x)
    assert list(outputs) == [layer.label for layer in model.layers] and "last" in outputs
    assert [a.shape for a in outputs.values()] == [(3, 4, 3, 4), (3, 2, 1, 4), (3, 8), (3, 7), (3, 7)]
    pooled = outputs["max_pooling2d"]
    assert np.array_equal(pooled[:, 0, 0], outputs["conv2d"][:, :2, :2].max(axis=(1, 2)))
    assert np.allclose(outputs["last"], model.predict(x), atol=1e-6)
    silenced = model.layer_outputs(x, train=True)
    assert (silenced["dropout"] == 0).mean() > 0.2 and np.array_equal(silenced["last"], outputs["last"])
    assert all(a.flags.owndata for a in outputs.values())


def test_two_forwards_can_be_outstanding():
    model = cnn()
    a, b = images(4, seed=1)[0], images(4, seed=2)[0]
    ya, ca = model.forward(a, train=True)
    yb, cb = model.forward(b, train=True)
    da = model.backward(ya, ca)
    db = model.backward(yb, cb)
    again, caches = model.forward(b, train=True)
    assert np.array_equal(model.backward(again, caches), db)
    again, caches = model.forward(a, train=True)
    assert np.array_equal(model.backward(again, caches), da)


def test_caches_are_used_up_by_backward():
    x, _ = vectors()
    model = mlp()
    y, caches = model.forward(x, train=True)
    model.backward(y, caches)
    with pytest.raises(ValueError, match=r"caches of one forward. Received: 0 caches for 4 layers.*once"):
        model.backward(y, caches)
    with pytest.raises(ValueError, match=r"caches of one forward. Received: 'NoneType'"):
        model.backward(y, None)


@pytest.mark.parametrize("shape", [(24, 4), (23, 3), (3,)])
def test_a_dy_of_the_wrong_shape_is_named(shape):
    x, _ = vectors()
    model = mlp()
    _, caches = model.forward(x, train=True)
    with pytest.raises(
        ShapeError, match=r"dy does not fit the model's output. Received: .* Expected: \(24, 3\)"
    ):
        model.backward(np.ones(shape), caches)


def test_gradients_go_by_the_names_and_shapes_of_state_dict():
    x, y = images()
    model = cnn()
    gradients, state = model.gradients(x, y), model.state_dict()
    assert list(gradients) == [k for k in state if k.split(".")[-1] in ("weight", "bias")]
    assert all(gradients[k].shape == state[k].shape for k in gradients)


def test_gradients_leave_all_state_as_it_was():
    x, y = vectors()
    model, twin = mlp(), mlp()
    for one in (model, twin):
        one.fit(x, y, epochs=1, batch_size=8, verbose=0)
    before = everything(model)
    first = model.gradients(x, y)
    assert same(everything(model), before)
    assert same(first, model.gradients(x, y)), "a second call must see the same dropout masks"
    model.gradients(x * 9, y)
    for one in (model, twin):
        one.fit(x, y, epochs=1, batch_size=8, verbose=0)
    assert same(everything(model), everything(twin))


def test_what_gradients_saw_never_reaches_the_running_statistics():
    x, y = vectors()
    model = mlp()
    model.fit(x, y, verbose=0)
    model.gradients(x * 9, y)
    model.forward(x * 9, train=True)
    model.layers[1].trainable = False
    before = model.state_dict()["2.running_mean"]
    model.train_on_batch(x, y)
    assert np.array_equal(model.state_dict()["2.running_mean"], before)


def test_a_step_of_sgd_moves_against_the_gradient():
    x, y = vectors()
    model = mlp()
    model.compile(optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    gradients, before = model.gradients(x, y), model.state_dict()
    model.train_on_batch(x, y)
    after = model.state_dict()
    for name, g in gradients.items():
        assert np.allclose(after[name], before[name] - 0.5 * g, atol=1e-6), name


def test_layers_that_are_not_trained_stay_as_they_are():
    x, y = vectors()
    model = mlp()
    model.fit(x, y, verbose=0)
    model.layers[0].trainable = False
    before = model.state_dict()
    model.fit(x, y, verbose=0)
    after = model.state_dict()
    assert np.array_equal(before["0.weight"], after["0.weight"])
    assert not np.array_equal(before["4.weight"], after["4.weight"])
    model.layers[0].trainable = True
    model.fit(x, y, verbose=0)
    assert not np.array_equal(before["0.weight"], model.state_dict()["0.weight"])


def test_a_frozen_model_learns_nothing_until_it_is_thawed():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 5)).astype(np.float32), rng.integers(0, 3, 8)
    layers = [Residual([Dense(5), BatchNormalization()]), Dense(3)]
    model = Sequential(layers, input_shape=(5,), seed=0, device="cpu")
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.state_dict()
    model.trainable = False
    assert not model.trainable and not any(layer.trainable for layer in model.all_layers())
    model.fit(x, y, verbose=0)
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())
    model.trainable = True
    model.fit(x, y, verbose=0)
    after = model.state_dict()
    assert model.trainable and not np.array_equal(before["0.body.0.weight"], after["0.body.0.weight"])


def test_freezing_a_container_freezes_what_is_inside():
    x, y = vectors()
    model = Sequential(
        [Residual([Dense(5), BatchNormalization()], trainable=False), Dense(3)], input_shape=(5,)
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.state_dict()
    model.train_on_batch(x, y)
    after = model.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before if name.startswith("0."))
    assert not np.array_equal(before["1.weight"], after["1.weight"])


# -- copies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))],
    ids=["deepcopy", "copy", "pickle"],
)
def test_a_copy_is_equal_independent_and_trains_on_to_the_same_bits(duplicate):
    x, y = vectors()
    model = mlp()
    model.fit(x, y, epochs=2, batch_size=8, verbose=0)
    before, predicted = everything(model), model.predict(x)
    twin = duplicate(model)
    assert same(everything(twin), before)
    for slot in twin.params.slots:
        assert np.shares_memory(getattr(slot.layer, slot.name), twin.params.values)
    twin.fit(x, y, epochs=2, batch_size=8, verbose=0)
    assert not np.array_equal(twin.predict(x), predicted), "a step must move the copy's own layers"
    assert same(everything(model), before) and np.array_equal(model.predict(x), predicted)
    model.fit(x, y, epochs=2, batch_size=8, verbose=0)
    assert same(everything(model), everything(twin))


def test_an_unbuilt_or_uncompiled_model_copies_too():
    unbuilt = copy.deepcopy(Sequential([Dense(3)], seed=0))
    assert not unbuilt.built and unbuilt.predict(np.ones((1, 5))).shape == (1, 3)
    assert pickle.loads(pickle.dumps(Sequential([Dense(3)], input_shape=(5,)))).loss is None


def test_an_optimizer_can_be_pickled_and_belongs_to_one_model():
    x, y = vectors()
    model = mlp()
    model.train_on_batch(x, y)
    twin = pickle.loads(pickle.dumps(model.optimizer))
    assert isinstance(twin, optimizers.Adam) and twin.iterations == 1
    other = Sequential([Dense(3)], input_shape=(5,))
    with pytest.raises(ValueError, match=r"belongs to another model.*Make a new one"):
        other.compile(model.optimizer, "mse")
    other.compile(twin, "mse")
    assert twin.iterations == 0


def test_the_package_offers_the_names_of_the_design():
    for name in ("Sequential", "load_model", "check_gradients", "numerical_gradient", "set_num_threads"):
        assert callable(getattr(xpnet, name))
    assert xpnet.layers is layers
