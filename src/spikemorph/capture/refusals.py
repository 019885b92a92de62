"""Advice for operations without a rule."""

from __future__ import annotations

from spikemorph.errors import Offence
from spikemorph.ir.graph import Origin

PACKED = (
    "on a packed sequence",
    "padded batches [batch, elements, features]",
    "call the recurrent layer on the padded batch, and give the lengths to simulate, evaluate and verify: "
    "lengths=...",
)
"""got, known and do of a refusal."""

_GATES = (
    "torch.nn.RNN, which sums over time; the gates of LSTM and GRU multiply sums over time: not converted",
    "use torch.nn.RNN with nonlinearity='relu' or 'tanh', or Conv1d over time",
)
_NORM = (
    "BatchNorm at rest is an affine map; this norm divides by a statistic of the activations themselves",
    "train with BatchNorm1d or BatchNorm2d in its place",
)
_ATTENTION = (
    "matrix products with constant matrices; elementwise products of two activations",
    "attention is not converted yet: replace it by convolutions, linear layers or gates (x * g)",
)
_LOOKUP = (
    "inputs are floating-point activations; table lookups take integers",
    "run the embedding outside the model and give its result as example input",
)
_BRANCH = (
    "every sample takes the same path through the network",
    "replace the branch or mask by ReLU, clamp, maximum or a product with a sigmoid gate",
)
_ASSIGN = (
    "values are made once; writing into a part of a tensor is not converted",
    "build the result with torch.cat or torch.stack instead of assigning to slices",
)
_RANDOM = (
    "networks that compute the same thing every time",
    "call model.eval(), or remove the random operation from forward",
)
_INDICES = (
    "maxima by value; argmax as the last operation",
    "return the scores and sort them outside the model",
)
_STATISTIC = (
    "mean, sum, amax over the axes of a sample",
    "replace it by a mean or by a trained BatchNorm",
)
_SMOOTH = (
    "relu, relu6, clamp, leaky_relu, prelu, sigmoid, tanh, hardsigmoid, hardswish, silu, gelu, elu, selu, "
    "celu, mish, softplus, abs, square",
    "use one of these functions (erf and exp inside a GELU, SiLU or softmax: call the torch function itself)",
)
_THREE_D = (
    "Conv1d, Conv2d, pools and upsampling over one or two axes",
    "rebuild the layer from 2-d ones, for example a (2+1)-d convolution",
)
_RESIZE = (
    "nearest, linear (1-d) and bilinear upsampling",
    "use mode='nearest' or mode='bilinear'",
)
_TRAINING_NORM = (
    "batch norm with stored statistics",
    "call model.eval() before export, and build the layer with track_running_stats=True",
)
_EINSUM = (
    "linear, matmul with a constant matrix, elementwise products",
    "write the einsum as torch.nn.functional.linear, or as x * y followed by sum",
)
_ANY = (
    "convolutions, linear layers, batch norm, activations, pools, sums, products, views",
    "rewrite it with those, or move it in front of or behind the network",
)

_TOPICS: tuple[tuple[tuple[str, str], str], ...] = (
    (_GATES, "lstm gru lstm_cell gru_cell"),
    (PACKED[1:], "_pack_padded_sequence _pad_packed_sequence"),
    (
        _NORM,
        "layer_norm native_layer_norm group_norm native_group_norm instance_norm rms_norm "
        "local_response_norm norm linalg_vector_norm _fused_rms_norm",
    ),
    (
        _ATTENTION,
        "scaled_dot_product_attention _native_multi_head_attention baddbmm "
        "_transformer_encoder_layer_fwd MultiheadAttention",
    ),
    (_LOOKUP, "embedding embedding_bag _embedding_bag one_hot gather scatter"),
    (
        _BRANCH,
        "where gt ge lt le eq ne masked_fill item _local_scalar_dense cond nonzero while_loop "
        "logical_and logical_or logical_not sign heaviside any",
    ),
    (_ASSIGN, "slice_scatter select_scatter index_put copy fill scatter_add masked_scatter"),
    (_RANDOM, "rand randn rand_like randn_like bernoulli multinomial randint randperm rrelu"),
    (_INDICES, "topk sort argsort argmin kthvalue unique"),
    (
        _STATISTIC,
        "var std var_mean std_mean prod median logsumexp cumsum cumprod sum mean max min amin aminmax",
    ),
    (
        _SMOOTH,
        "erf exp log log1p expm1 sqrt rsqrt reciprocal sin cos log_sigmoid_forward log_sigmoid "
        "softsign hardshrink softshrink tanhshrink pow round floor ceil",
    ),
    (
        _THREE_D,
        "conv3d conv_transpose3d max_pool3d max_pool3d_with_indices avg_pool3d "
        "adaptive_avg_pool3d _adaptive_avg_pool3d upsample_nearest3d upsample_trilinear3d",
    ),
    (
        _RESIZE,
        "upsample_bicubic2d _upsample_nearest_exact1d _upsample_nearest_exact2d grid_sampler "
        "_upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler_2d",
    ),
    (
        _TRAINING_NORM,
        "_native_batch_norm_legit native_batch_norm _batch_norm_with_update "
        "_native_batch_norm_legit_functional",
    ),
    (_EINSUM, "einsum bilinear tensordot"),
)
"""Advice and the aten names, or torch.nn modules, that it is for."""

_ADVICE = {name: advice for advice, names in _TOPICS for name in names.split()}


def unsupported(origin: Origin, name: str) -> Offence:
    """The offence of an operation that has no rule; `name` is its aten name without the overload."""
    known, do = _ADVICE.get(name, _ANY)
    return Offence(where=str(origin), got=origin.call, known=known, do=do)


def layer_refused(path: str, kind: str, name: str) -> Offence:
    """The offence of a torch.nn module that torch itself could not export; `name` is its aten name."""
    return unsupported(Origin(module=path, call=f"torch.nn.{kind}"), name)


def softmax_inside(origin: Origin) -> Offence:
    """The offence of a host operation whose result flows on into the network."""
    return Offence(
        where=str(origin),
        got=f"{origin.call} inside the network",
        known="softmax and argmax as the last operation: they run on the host, on the decoded output",
        do="return its result as it is, or gate with sigmoid; attention is not converted yet",
    )
