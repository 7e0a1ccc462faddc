//! The operators that runtimes take, as their makers list them.
//!
//! Kept to what a vision network can hold; an operator on no list is a violation. A source is a file
//! of the maker's repository, with the version that it was read in where the file says one.

use emo_proto::tensor_proto::DataType;

use super::condition::{Condition, List, Permit};

const fn when(op: &'static str, source: &'static str, when: &'static [Condition]) -> Permit {
    Permit { domain: "", op, when, source }
}

const fn microsoft(op: &'static str, source: &'static str) -> Permit {
    Permit { domain: "com.microsoft", op, when: &[], source }
}

const FLOATS: &[DataType] = &[DataType::Float, DataType::Float16];

pub const COREML: &str = "onnxruntime 1.32 tools/mobile_helpers/coreml_supported_mlprogram_ops.md";
const COREML_GEMM: &str = "onnxruntime core/providers/coreml/builders/impl/gemm_op_builder.cc";
const COREML_RESHAPE: &str = "onnxruntime core/providers/coreml/builders/impl/reshape_op_builder.cc";
const COREML_RESIZE: &str = "onnxruntime core/providers/coreml/builders/impl/resize_op_builder.cc";
const COREML_CAST: &str = "onnxruntime core/providers/coreml/builders/impl/cast_op_builder.cc";

/// A map, not a line or a volume.
const TWO_D: Condition = Condition::Rank { operand: 0, lowest: 4, highest: 4 };

const COREML_WHEN: &[Permit] = &[
    when("AveragePool", COREML, &[TWO_D]),
    when("MaxPool", COREML, &[TWO_D]),
    when("GlobalAveragePool", COREML, &[TWO_D]),
    when("GlobalMaxPool", COREML, &[TWO_D]),
    when(
        "Conv",
        COREML,
        &[Condition::Rank { operand: 0, lowest: 3, highest: 4 }, Condition::Constant { operand: 2 }],
    ),
    when(
        "ConvTranspose",
        COREML,
        &[
            Condition::Constant { operand: 1 },
            Condition::Constant { operand: 2 },
            Condition::Text { attribute: "auto_pad", default: "NOTSET", values: &["NOTSET", "VALID"] },
        ],
    ),
    when(
        "DepthToSpace",
        COREML,
        &[Condition::Text { attribute: "mode", default: "DCR", values: &["DCR", "CRD"] }],
    ),
    when("GatherND", COREML, &[Condition::Int { attribute: "batch_dims", default: 0, values: &[0] }]),
    // The list has its note on transA, alpha and beta beside MatMul, which has no such attributes;
    // the builder of both asks it of Gemm, and lets MatMul have any second operand.
    when(
        "Gemm",
        COREML_GEMM,
        &[
            Condition::Constant { operand: 1 },
            Condition::Constant { operand: 2 },
            Condition::Int { attribute: "transA", default: 0, values: &[0] },
            Condition::Float { attribute: "alpha", value: 1.0 },
            Condition::Float { attribute: "beta", value: 1.0 },
        ],
    ),
    when(
        "GridSample",
        COREML,
        &[TWO_D, Condition::Text { attribute: "mode", default: "linear", values: &["linear", "bilinear"] }],
    ),
    when(
        "And",
        COREML,
        &[
            Condition::Types { operand: 0, types: &[DataType::Bool] },
            Condition::Types { operand: 1, types: &[DataType::Bool] },
        ],
    ),
    when(
        "Pow",
        COREML,
        &[
            Condition::Types { operand: 0, types: &[DataType::Float] },
            Condition::Types { operand: 1, types: &[DataType::Float] },
        ],
    ),
    // The list has no note; the builder wants the target to be a constant.
    when("Reshape", COREML_RESHAPE, &[Condition::Constant { operand: 1 }]),
    when(
        "Slice",
        COREML,
        &[
            Condition::Constant { operand: 1 },
            Condition::Constant { operand: 2 },
            Condition::Constant { operand: 3 },
            Condition::Constant { operand: 4 },
        ],
    ),
    when("Split", COREML, &[Condition::Constant { operand: 1 }]),
    when("Tile", COREML, &[Condition::Rank { operand: 0, lowest: 0, highest: 5 }]),
    when(
        "Where",
        COREML,
        &[Condition::Types { operand: 1, types: FLOATS }, Condition::Types { operand: 2, types: FLOATS }],
    ),
    microsoft("QuickGelu", COREML),
    microsoft("FusedConv", COREML),
    // The list has no note. The builder wants constants; scales that are whole, or sizes, which may be any.
    when(
        "Resize",
        COREML_RESIZE,
        &[
            Condition::Rank { operand: 0, lowest: 3, highest: 5 },
            Condition::Constant { operand: 2 },
            Condition::Constant { operand: 3 },
            Condition::Text { attribute: "mode", default: "nearest", values: &["nearest", "linear"] },
            Condition::Int { attribute: "antialias", default: 0, values: &[0] },
        ],
    ),
    when(
        "Cast",
        COREML_CAST,
        &[Condition::Types {
            operand: 0,
            types: &[DataType::Float, DataType::Float16, DataType::Int32, DataType::Int64, DataType::Bool],
        }],
    ),
];

pub const NNAPI: &str = "onnxruntime 1.32 tools/mobile_helpers/nnapi_supported_ops.md";
const NNAPI_GEMM: &str = "onnxruntime core/providers/nnapi/nnapi_builtin/builders/impl/gemm_op_builder.cc";
const NNAPI_MATMUL: &str =
    "onnxruntime core/providers/nnapi/nnapi_builtin/builders/op_builder_helpers.cc, IsSupportedBatchMatMul";
const NNAPI_RESHAPE: &str =
    "onnxruntime core/providers/nnapi/nnapi_builtin/builders/impl/reshape_op_builder.cc";
const NNAPI_RESIZE: &str =
    "onnxruntime core/providers/nnapi/nnapi_builtin/builders/impl/resize_op_builder.cc";
const NNAPI_CAST: &str = "onnxruntime core/providers/nnapi/nnapi_builtin/builders/impl/cast_op_builder.cc";

/// Scale and zero point.
const QUANTIZATION: &[Condition] = &[Condition::Constant { operand: 1 }, Condition::Constant { operand: 2 }];

const NNAPI_WHEN: &[Permit] = &[
    // The list has no note. The provider multiplies matrix by matrix, and broadcasts nothing; of
    // lone matrices the second must be a constant.
    when(
        "MatMul",
        NNAPI_MATMUL,
        &[
            Condition::SameBatch,
            Condition::Either(
                &Condition::Rank { operand: 0, lowest: 3, highest: 4 },
                &Condition::Constant { operand: 1 },
            ),
        ],
    ),
    when("AveragePool", NNAPI, &[TWO_D]),
    when("MaxPool", NNAPI, &[TWO_D]),
    when("GlobalAveragePool", NNAPI, &[TWO_D]),
    when("GlobalMaxPool", NNAPI, &[TWO_D]),
    when("Conv", NNAPI, &[TWO_D, Condition::Constant { operand: 1 }, Condition::Constant { operand: 2 }]),
    when("DepthToSpace", NNAPI, &[Condition::Text { attribute: "mode", default: "DCR", values: &["DCR"] }]),
    when(
        "Gather",
        NNAPI,
        &[Condition::Either(
            &Condition::Types { operand: 1, types: &[DataType::Int32] },
            &Condition::Constant { operand: 1 },
        )],
    ),
    when("DequantizeLinear", NNAPI, QUANTIZATION),
    when("QuantizeLinear", NNAPI, QUANTIZATION),
    when(
        "Gemm",
        NNAPI_GEMM,
        &[
            Condition::Either(
                &Condition::Int { attribute: "transB", default: 0, values: &[1] },
                &Condition::Constant { operand: 1 },
            ),
            Condition::Int { attribute: "transA", default: 0, values: &[0] },
            Condition::Float { attribute: "alpha", value: 1.0 },
            Condition::Float { attribute: "beta", value: 1.0 },
        ],
    ),
    when(
        "Pad",
        NNAPI,
        &[
            Condition::Text { attribute: "mode", default: "constant", values: &["constant"] },
            Condition::Constant { operand: 1 },
            Condition::Constant { operand: 2 },
            Condition::NonNegative { operand: 1 },
        ],
    ),
    // The list has its note on the rank alone; the builder also wants constants.
    when(
        "Resize",
        NNAPI_RESIZE,
        &[
            TWO_D,
            Condition::Constant { operand: 2 },
            Condition::Constant { operand: 3 },
            Condition::Text { attribute: "mode", default: "nearest", values: &["nearest", "linear"] },
            Condition::Int { attribute: "antialias", default: 0, values: &[0] },
        ],
    ),
    when("Split", NNAPI, &[Condition::Constant { operand: 1 }, Condition::EqualParts]),
    when("Squeeze", NNAPI, &[Condition::Constant { operand: 1 }]),
    when("Unsqueeze", NNAPI, &[Condition::Constant { operand: 1 }]),
    when("Reshape", NNAPI_RESHAPE, &[Condition::Constant { operand: 1 }]),
    when("Cast", NNAPI_CAST, &[Condition::Types { operand: 0, types: &[DataType::Float, DataType::Int32] }]),
];

pub const QNN: &str = "onnxruntime-qnn QNN-ExecutionProvider.md, supported ONNX operators (QAIRT 2.48)";
const QNN_FUSED: &str = "onnxruntime-qnn QNN-ExecutionProvider.md, operator decomposition fusions";
const QNN_GEMM: &str = "onnxruntime core/providers/qnn/builder/opbuilder/gemm_op_builder.cc";

const QNN_WHEN: &[Permit] = &[
    // On no list of its own: the provider takes it as part of GELU.
    when("Erf", QNN_FUSED, &[]),
    when("Gather", QNN, &[Condition::NonNegative { operand: 1 }]),
    when(
        "Gemm",
        QNN_GEMM,
        &[
            Condition::Float { attribute: "alpha", value: 1.0 },
            Condition::Float { attribute: "beta", value: 1.0 },
        ],
    ),
    when("LpNormalization", QNN, &[Condition::Int { attribute: "p", default: 2, values: &[2] }]),
    microsoft("Gelu", QNN),
    microsoft("QuickGelu", QNN),
    microsoft("FusedMatMul", QNN),
];

pub const TFLITE: &str = "tensorflow/compiler/mlir/lite/schema/schema.fbs, BuiltinOperator, as onnx2tf's README \
                          (flatbuffer_direct) maps ONNX to it";

pub const TENSORRT: &str = "onnx-tensorrt docs/operators.md, TensorRT 10.15, opsets 9 to 24";

/// The axes are a constant.
const AXES: &[Condition] = &[Condition::Constant { operand: 1 }];
/// Maps and volumes.
const TWO_OR_THREE_D: &[Condition] = &[Condition::Rank { operand: 0, lowest: 4, highest: 5 }];

const TENSORRT_WHEN: &[Permit] = &[
    when("AveragePool", TENSORRT, TWO_OR_THREE_D),
    when("MaxPool", TENSORRT, TWO_OR_THREE_D),
    when("GridSample", TENSORRT, &[TWO_D]),
    when("CumSum", TENSORRT, AXES),
    when("OneHot", TENSORRT, AXES),
    when("ReduceL1", TENSORRT, AXES),
    when("ReduceL2", TENSORRT, AXES),
    when("ReduceMax", TENSORRT, AXES),
    when("ReduceMean", TENSORRT, AXES),
    when("ReduceMin", TENSORRT, AXES),
    when("ReduceProd", TENSORRT, AXES),
    when("ReduceSum", TENSORRT, AXES),
    when("ReduceSumSquare", TENSORRT, AXES),
    when("Squeeze", TENSORRT, AXES),
    when("Unsqueeze", TENSORRT, AXES),
];

pub const WEBGPU: &str =
    "onnxruntime core/providers/webgpu/webgpu_execution_provider.cc, the kernels it registers";

const WEBGPU_WHEN: &[Permit] = &[
    microsoft("Gelu", "onnxruntime js/web/docs/webgpu-operators.md"),
    microsoft("FusedConv", "onnxruntime js/web/docs/webgpu-operators.md"),
    microsoft("SkipLayerNormalization", "onnxruntime js/web/docs/webgpu-operators.md"),
];

pub const NCNN: &str =
    "ncnn docs/developer-guide/operators.md, and the ONNX patterns of tools/pnnx/src/pass_level2";
const NCNN_RESHAPE: &str = "ncnn tools/pnnx/src/pass_ncnn/Tensor_reshape.cpp";

const NCNN_WHEN: &[Permit] = &[
    when("Reshape", NCNN_RESHAPE, &[Condition::Constant { operand: 1 }]),
    when("Softmax", NCNN, &[Condition::Types { operand: 0, types: FLOATS }]),
];

pub const COREML_LIST: List = List {
    source: COREML,
    plain: "Add ArgMax Ceil Clip Concat Cos Div Elu Erf Exp Gelu GroupNormalization HardSigmoid \
            Identity InstanceNormalization LayerNormalization LeakyRelu MatMul Max Mul PRelu \
            Reciprocal ReduceMax ReduceMean ReduceSum Relu Round Shape Sigmoid Sin \
            Softmax Softplus Sqrt Squeeze Sub Tanh Transpose Unsqueeze",
    when: COREML_WHEN,
};

pub const NNAPI_LIST: List = List {
    source: NNAPI,
    plain: "Abs Add BatchNormalization Clip Concat Div Elu Exp Flatten Floor Identity LRN \
            LeakyRelu Log Max Min Mul Neg PRelu Pow ReduceMean Relu Sigmoid Sin Slice Softmax \
            Sqrt Sub Tanh Transpose",
    when: NNAPI_WHEN,
};

pub const QNN_LIST: List = List {
    source: QNN,
    plain: "Abs Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization Cast CastLike \
            Ceil Clip Concat Conv ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div \
            Einsum Elu Equal Exp Expand Flatten Floor GatherElements GatherND Gelu \
            GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization \
            HardSigmoid HardSwish Identity InstanceNormalization IsNaN LRN LayerNormalization \
            LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Mean Min Mod Mul Neg \
            NonZero Not Or PRelu Pad Pow QuantizeLinear RMSNormalization Reciprocal ReduceL2 \
            ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Resize RoiAlign \
            Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Slice Softmax Softplus \
            SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose \
            Unsqueeze Upsample Where Xor",
    when: QNN_WHEN,
};

/// Operators with a builtin of their own; Erf would be a Flex operator.
pub const TFLITE_LIST: List = List {
    source: TFLITE,
    plain: "Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Conv \
            ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Elu Equal Exp Expand \
            Flatten Floor Gather GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater \
            GreaterOrEqual HardSigmoid HardSwish Identity LayerNormalization LeakyRelu Less \
            LessOrEqual Log LogSoftmax MatMul Max MaxPool Min Mul Neg Not Or PRelu Pad Pow \
            QuantizeLinear Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu \
            Reshape Resize Round Shape Sigmoid Sign Sin Slice Softmax SpaceToDepth Split Sqrt \
            Squeeze Sub Sum Tanh Tile TopK Transpose Unsqueeze Where",
    when: &[],
};

pub const TENSORRT_LIST: List = List {
    source: TENSORRT,
    plain: "Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh BatchNormalization Cast \
            CastLike Ceil Celu Clip Concat ConstantOfShape Conv ConvTranspose Cos Cosh \
            DeformConv DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand \
            EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool \
            GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid \
            HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LRN \
            LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization \
            LpPool MatMul Max Mean MeanVarianceNormalization Min Mish Mod Mul Neg \
            NonMaxSuppression NonZero Not Or PRelu Pad Pow QuantizeLinear RMSNormalization Range \
            Reciprocal ReduceLogSum ReduceLogSumExp Relu Reshape Resize RoiAlign Round Scan \
            ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax \
            Softplus Softsign SpaceToDepth Split Sqrt Sub Sum Tan Tanh ThresholdedRelu Tile TopK \
            Transpose Trilu Upsample Where Xor",
    when: TENSORRT_WHEN,
};

pub const WEBGPU_LIST: List = List {
    source: WEBGPU,
    plain: "Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool \
            BatchNormalization Cast Ceil Clip Concat Conv ConvTranspose Cos Cosh CumSum \
            DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf Exp Expand Flatten Floor \
            Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater \
            GreaterOrEqual GridSample HardSigmoid Identity If InstanceNormalization \
            LayerNormalization LeakyRelu Less LessOrEqual Log LpNormalization MatMul MaxPool Mul \
            Neg Not Pad Pow RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum \
            ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare \
            Relu Reshape Resize ScatterElements ScatterND Shape Sigmoid Sin Sinh Slice Softmax \
            Softplus Split Sqrt Squeeze Sub Tan Tanh ThresholdedRelu Tile TopK Transpose \
            Unsqueeze Where",
    when: WEBGPU_WHEN,
};

pub const NCNN_LIST: List = List {
    source: NCNN,
    plain: "Abs Acos Add Asin Atan AveragePool BatchNormalization Ceil Clip Concat Conv \
            ConvTranspose Cos Div Elu Erf Exp Flatten Floor Gelu Gemm GlobalAveragePool \
            GlobalMaxPool GroupNormalization HardSigmoid HardSwish Identity \
            InstanceNormalization LRN LayerNormalization LeakyRelu Log MatMul Max MaxPool Min \
            Mul Neg PRelu Pad Pow Reciprocal ReduceMax ReduceMean ReduceMin ReduceSum Relu \
            Resize Selu Sigmoid Sin Slice Softplus Split Sqrt Squeeze Sub Tan Tanh Tile \
            Transpose Unsqueeze",
    when: NCNN_WHEN,
};
