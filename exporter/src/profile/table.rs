//! The table.
//!
//! Sources are documents of the runtimes' makers, or issues in their trackers; "measured" is by
//! this project's harnesses, `tests/bench/race` and `tests/peers/mobile.py`.

use super::accept::{Allow, Opsets};
use super::condition::Operators;
use super::lists;
use super::{
    Attention, Expansion, Forms, Gelu, HighestRank, LayerNorm, Mix, MostImages, Padding, Pool, Profile, Qk,
    Resizing, Silu, Windows,
};
use crate::graph::Part;

const FIELD: &str = "LayerNormalization is opset 17's, Gelu opset 20's; nothing newer is widely taken";
const BOTH: Opsets = Opsets { versions: &[17, 20], source: FIELD };

const ONNX: &[&str] = &[""];
const ONNX_RUNTIME: &[&str] = &["", "ai.onnx.ml", "com.microsoft"];

/// Where a runtime sets no limit of its own.
const ANY_RANK: usize = usize::MAX;

const RANK_4: HighestRank = HighestRank {
    rank: 4,
    taken: 4,
    source: "the lowest of the limits: NNAPI takes Reshape, Transpose, Softmax to rank 4, CoreML refuses \
             above 5, QNN runs 5 slowly (onnxruntime-qnn 505, 745), ncnn refuses 6 (ncnn#4708)",
};

/// For runtimes that take any rank, and pay for it.
const SLOW_ABOVE_4: HighestRank = HighestRank {
    rank: 4,
    taken: ANY_RANK,
    source: "measured: transposes of rank 5 and 6 are slow and break the layout that convolutions are \
             computed in; in ONNX Runtime they take 23 % of the time of PyTorch's file",
};

/// Nothing folded, each layer as the published code has it.
const PUBLISHED: Forms = Forms {
    fold: false,
    merge: false,
    split: false,
    unpartition_first: false,
    expansion: Expansion::Conv,
    attention: Attention::Channels {
        windows: Windows::Strips,
        qk: Qk::OfWindows,
        mix: Mix::TransposedValues,
    },
    layer_norm: LayerNorm::Operator,
    silu: Silu::Sigmoid,
    gelu: Gelu::Operator,
    pool: Pool::Published,
    padding: Padding::Pad,
    resizing: Resizing::LeftOut,
};

/// What measured fastest on processors: everything folded, tokens outermost.
const TOKENS: Forms = Forms {
    fold: true,
    merge: true,
    split: true,
    unpartition_first: true,
    attention: Attention::Tokens,
    pool: Pool::ReduceMean,
    ..PUBLISHED
};

/// For accelerators that are built for convolutions.
const CHANNELS: Forms = Forms {
    attention: Attention::Channels {
        windows: Windows::Strips,
        qk: Qk::OfWindows,
        mix: Mix::TransposedScores,
    },
    pool: Pool::GlobalAveragePool,
    split: false,
    ..TOKENS
};

/// The same where `SpaceToDepth` is an operator of the hardware.
const CHANNELS_DEPTH: Forms = Forms {
    attention: Attention::Channels {
        windows: Windows::SpaceToDepth,
        qk: Qk::OfWindows,
        mix: Mix::TransposedScores,
    },
    ..CHANNELS
};

/// Statistics, exponentials and powers lose too much in float16 where a runtime has the choice. The
/// Neural Engine and the Hexagon compute in float16 throughout, and a float32 island leaves them.
const KEPT: &[Part] = &[Part::LayerNorm, Part::Softmax, Part::Gelu, Part::Image];

const STATIC: &str = "a fixed batch, or the target portable";
const FLOATS_ONLY: &str = "images as normalised floats, or the target portable";

pub const PROFILES: [Profile; 12] = [
    Profile {
        name: "reference",
        summary: "nothing folded: the initializers are the published state dict",
        opsets: BOTH,
        rank: SLOW_ABOVE_4,
        free_batch: Allow::Yes,
        most_images: None,
        half: Allow::Yes,
        float32: KEPT,
        image_input: Allow::Yes,
        operators: Operators::Any { domains: ONNX, source: "the ONNX standard" },
        notes: &[],
        forms: PUBLISHED,
    },
    Profile {
        name: "portable",
        summary: "for any runtime: rank 4 at most, norms and attention scale folded",
        opsets: BOTH,
        rank: RANK_4,
        free_batch: Allow::Yes,
        most_images: None,
        half: Allow::Yes,
        float32: KEPT,
        image_input: Allow::Yes,
        operators: Operators::Any {
            domains: ONNX,
            source: "the ONNX standard; where the batch is fixed also CoreML's list",
        },
        notes: &["published modules stay apart: the weights of each are still to be found by name"],
        forms: Forms {
            merge: false,
            split: false,
            padding: Padding::Concat,
            resizing: Resizing::Empty,
            ..TOKENS
        },
    },
    Profile {
        name: "ort-cpu",
        summary: "the fastest in ONNX Runtime on a processor",
        opsets: BOTH,
        rank: SLOW_ABOVE_4,
        free_batch: Allow::Yes,
        most_images: None,
        half: Allow::Yes,
        float32: KEPT,
        image_input: Allow::Yes,
        operators: Operators::Any {
            domains: ONNX_RUNTIME,
            source: "onnxruntime docs/OperatorKernels.md, CPUExecutionProvider",
        },
        notes: &[
            "MatmulTransposeFusion takes the heads' transposes of one image, so q, k and v are never moved",
            "float16 is stored and computed in float32 where the processor has no kernels for it",
        ],
        forms: Forms { resizing: Resizing::Logits { widest: 64 }, ..TOKENS },
    },
    Profile {
        name: "coreml",
        summary: "one ML Program for Apple's processors, through ONNX Runtime or coremltools",
        opsets: BOTH,
        rank: HighestRank {
            rank: 4,
            taken: 5,
            source: "CoreML refuses rank above 5; the Neural Engine is built for 4",
        },
        free_batch: Allow::No {
            because: "a free axis sends the graph from the Neural Engine to the processor",
            source: "a factor of 15 in one report",
            instead: STATIC,
        },
        most_images: None,
        half: Allow::Yes,
        float32: &[],
        image_input: Allow::No {
            because: "an ML Program has no input or Cast of uint8",
            source: "onnxruntime core/providers/coreml/builders/impl/cast_op_builder.cc",
            instead: FLOATS_ONLY,
        },
        operators: Operators::Listed(&lists::COREML_LIST),
        notes: &[
            "the list has its note on transA, alpha and beta beside MatMul; the provider asks it of Gemm, and \
             wants Gemm's third operand constant too (gemm_op_builder.cc)",
            "the list spells ArgMax as Argmax, so ONNX Runtime's mobile usability checker refuses it",
            "the checker looks at the ranks of operands alone; the provider also refuses a Reshape to more \
             than 5 axes, and one whose target is no constant (reshape_op_builder.cc)",
            "the checker counts a node with an operand of free shape as not taken; the provider takes some",
            "a Cast that reads the graph's input stays on the processor (cast_op_builder.cc): float16 files \
             begin with one, the rest is one partition",
            "not on the list: Flatten, Pad, Expand, Abs, Gather, SpaceToDepth",
            "Resize by scales wants whole ones; by sizes any are taken: linear by half pixels, nearest asymmetric and \
             rounded down (resize_op_builder.cc)",
        ],
        forms: Forms { padding: Padding::Concat, resizing: Resizing::Empty, ..CHANNELS },
    },
    Profile {
        name: "nnapi",
        summary: "one partition for Android's NNAPI (deprecated since Android 15; qnn is preferred)",
        opsets: BOTH,
        rank: HighestRank {
            rank: 4,
            taken: 4,
            source: "onnxruntime core/providers/nnapi/nnapi_builtin/builders/impl: transpose_op_builder.cc takes 1 to 4 axes, \
                     as NNAPI's Reshape, Transpose and Softmax do",
        },
        free_batch: Allow::No {
            because: "NNAPI takes no values of free size",
            source: "onnxruntime.ai NNAPI Execution Provider",
            instead: STATIC,
        },
        most_images: None,
        half: Allow::No {
            because: "the provider takes float32 alone, and computes in float16 by its flag USE_FP16",
            source: "onnxruntime.ai NNAPI Execution Provider",
            instead: "float32",
        },
        float32: KEPT,
        image_input: Allow::No {
            because: "the provider casts from float and int32 alone",
            source: "onnxruntime core/providers/nnapi/nnapi_builtin/builders/impl/cast_op_builder.cc",
            instead: FLOATS_ONLY,
        },
        operators: Operators::Listed(&lists::NNAPI_LIST),
        notes: &[
            "ONNX Runtime's mobile usability checker knows no highest rank for NNAPI and reads operators \
             alone; the provider refuses Transpose above 4 axes (transpose_op_builder.cc), MatMul that \
             broadcasts (op_builder_helpers.cc), and any first operand but float32 (base_op_builder.cc)",
            "the checker takes an operand that is left out for one of free shape: Pad without a value",
            "Resize is linear by half pixels from API level 30 on, nearest asymmetric and rounded down \
             (resize_op_builder.cc)",
            "the provider has no batched product: MatMul becomes a split, a FULLY_CONNECTED a matrix, and \
             a concatenation (op_builder_helpers.cc, BuildBatchMatMul)",
        ],
        forms: Forms {
            layer_norm: LayerNorm::ChannelFirst,
            gelu: Gelu::Spelled,
            resizing: Resizing::Scales,
            ..CHANNELS
        },
    },
    Profile {
        name: "qnn",
        summary: "Qualcomm's Hexagon, through ONNX Runtime or the QNN converter",
        opsets: Opsets { versions: &[20, 17], source: "Gelu is one operator of QNN's" },
        rank: HighestRank {
            rank: 4,
            taken: 5,
            source: "QNN refuses rank 6 and runs 5 slowly: onnxruntime-qnn 505, 745 gained 2-3x by rank 4",
        },
        free_batch: Allow::No {
            because: "the HTP backend takes fixed shapes alone",
            source: "onnxruntime-qnn QNN-ExecutionProvider.md, model requirements",
            instead: STATIC,
        },
        most_images: None,
        half: Allow::Yes,
        float32: &[],
        image_input: Allow::Yes,
        operators: Operators::Listed(&lists::QNN_LIST),
        notes: &[
            "Erf is taken as part of the GELU chain, which the provider fuses",
            "the list names 8 and 16 bit integers as MatMul's types on the HTP; the same page says that it \
             runs float models",
            "the provider rewrites some rank-6 shuffles itself: SpaceToDepth, and those with an axis of 1",
        ],
        forms: CHANNELS_DEPTH,
    },
    Profile {
        name: "tflite",
        summary: "LiteRT (TensorFlow Lite) builtins, through onnx2tf",
        opsets: Opsets { versions: &[20], source: "GELU is a builtin, Erf would be a Flex operator" },
        rank: HighestRank {
            rank: 4,
            taken: 6,
            source: "the GPU delegate's tensors are [batch, height, width, channels] \
                     (tensorflow/lite/delegates/gpu); the processor takes 6 (lite/kernels/transpose.cc)",
        },
        free_batch: Allow::No {
            because: "delegates take fixed shapes alone",
            source: "ai.google.dev LiteRT delegates",
            instead: STATIC,
        },
        most_images: None,
        half: Allow::No {
            because: "the converter makes float16 itself",
            source: "ai.google.dev LiteRT post-training float16 quantization",
            instead: "float32",
        },
        float32: KEPT,
        image_input: Allow::Yes,
        operators: Operators::Listed(&lists::TFLITE_LIST),
        notes: &["the converter spells LayerNormalization out in MEAN, SUB, MUL, RSQRT"],
        forms: CHANNELS_DEPTH,
    },
    Profile {
        name: "tensorrt",
        summary: "NVIDIA TensorRT",
        opsets: Opsets { versions: &[17, 20], source: lists::TENSORRT },
        rank: HighestRank {
            rank: 4,
            taken: 8,
            source: "TensorRT refuses above 8 (NvInferRuntimeBase.h, Dims::MAX_DIMS); one Transpose of rank 4 \
                     moves what one of rank 6 does",
        },
        free_batch: Allow::Yes,
        most_images: None,
        half: Allow::Yes,
        float32: KEPT,
        image_input: Allow::Yes,
        operators: Operators::Listed(&lists::TENSORRT_LIST),
        notes: &["the fused LayerNormalization keeps float16 accurate (TensorRT#3657, #2781)"],
        forms: TOKENS,
    },
    Profile {
        name: "openvino",
        summary: "Intel OpenVINO on a processor",
        opsets: BOTH,
        rank: SLOW_ABOVE_4,
        free_batch: Allow::Yes,
        most_images: None,
        half: Allow::Yes,
        float32: KEPT,
        image_input: Allow::Yes,
        operators: Operators::Any {
            domains: ONNX,
            source: "openvino src/frontends/onnx/docs/supported_ops.md",
        },
        notes: &[],
        forms: Forms {
            layer_norm: LayerNorm::ChannelFirst,
            silu: Silu::Quotient,
            resizing: Resizing::Logits { widest: 64 },
            ..TOKENS
        },
    },
    Profile {
        name: "web",
        summary: "onnxruntime-web, WebGPU and WASM",
        opsets: BOTH,
        rank: HighestRank {
            rank: 4,
            taken: ANY_RANK,
            source: "WebGPU's shaders had bugs above rank 4 (onnxruntime#18027)",
        },
        free_batch: Allow::Yes,
        most_images: None,
        half: Allow::Yes,
        float32: KEPT,
        image_input: Allow::Yes,
        operators: Operators::Listed(&lists::WEBGPU_LIST),
        notes: &[
            "WASM takes all that the CPU provider takes; the list is WebGPU's",
            "WebGPU takes node by node: a node that it lacks costs a copy to the processor and back",
            "Max, Min, PRelu and HardSwish came with the provider's plug-in 0.3; SpaceToDepth is missing",
        ],
        forms: TOKENS,
    },
    Profile {
        name: "ncnn",
        summary: "ncnn, through pnnx",
        opsets: Opsets { versions: &[17, 20], source: lists::NCNN },
        rank: HighestRank {
            rank: 4,
            taken: 4,
            source: "a Mat has w, h, d and c: ncnn docs/developer-guide/operators.md, Reshape; ncnn#4708",
        },
        free_batch: Allow::No {
            because: "ncnn's tensors have no batch axis",
            source: "ncnn docs/developer-guide",
            instead: "one image a run, or the target portable",
        },
        most_images: Some(MostImages {
            images: 1,
            because: "ncnn's tensors have no batch axis",
            source: "ncnn docs/developer-guide",
            instead: "one image a run, or the target portable",
        }),
        half: Allow::No {
            because: "pnnx makes float16 itself",
            source: "ncnn tools/pnnx/README.md",
            instead: "float32",
        },
        float32: KEPT,
        image_input: Allow::No {
            because: "ncnn normalises images itself, by Mat::from_pixels and substract_mean_normalize",
            source: "ncnn docs",
            instead: FLOATS_ONLY,
        },
        operators: Operators::Listed(&lists::NCNN_LIST),
        notes: &[
            "pnnx drops Reshapes of rank 6 and DepthToSpace without a word, and may reorder the channels \
                  of SpaceToDepth",
        ],
        forms: TOKENS,
    },
    Profile {
        name: "tract",
        summary: "sonos/tract, in Rust",
        opsets: Opsets { versions: &[17, 20], source: "tract is tested against opsets 9 to 18" },
        rank: SLOW_ABOVE_4,
        free_batch: Allow::Yes,
        most_images: None,
        half: Allow::Yes,
        float32: KEPT,
        image_input: Allow::Yes,
        operators: Operators::Any {
            domains: ONNX,
            source: "tract onnx/src/ops, but for Loop and Upsample-9",
        },
        notes: &["make the batch concrete before optimising: a symbolic one is 3.3x slower"],
        forms: Forms {
            expansion: Expansion::Rows,
            layer_norm: LayerNorm::Rows,
            resizing: Resizing::Products { widest: 256 },
            ..TOKENS
        },
    },
];
